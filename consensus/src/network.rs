//! openraft's way to its peers. Nothing here dials: the connections are kept up elsewhere (see [`crate::peer`]), so
//! making a client costs nothing and a peer in a black hole delays nobody else.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use baton_runbooks::model::NodeId;
use bytes::Bytes;
use openraft::RaftNetworkFactory;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;

use crate::error::RequestError;
use crate::node::Node;
use crate::transport::Channel;
use crate::types::{TypeConfig, Voter};
use crate::wire::{Ask, Envelope, Kind, Rpc};

/// How long an append *with entries* may take. openraft's own deadline is one heartbeat, which a slow sync on the
/// follower easily exceeds; it would then be sent, and synced, again and again. Heartbeats travel beside it.
const APPEND_DEADLINE: Duration = Duration::from_millis(1000);

/// Makes clients.
#[derive(Clone)]
pub struct Network {
    /// This node.
    pub node: Arc<Node>,
}

/// The way to one Raft id.
pub struct Client {
    node: Arc<Node>,
    name: NodeId,
    raft_id: u64,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, raft_id: u64, voter: &Voter) -> Client {
        Client { node: Arc::clone(&self.node), name: voter.name.clone(), raft_id }
    }
}

impl Client {
    async fn call<T: DeserializeOwned>(
        &self,
        channel: Channel,
        rpc: Rpc,
        deadline: Duration,
    ) -> Result<T, Unreachable<TypeConfig>> {
        let asked = async {
            let peer = self.node.peer(&self.name, channel)?;
            let payload = self.node.envelope(&Ask::Raft { to: self.raft_id, rpc });
            peer.ask(Kind::Control, payload, deadline).await
        };
        let answer: Bytes = asked.await.map_err(|error| Unreachable::new(&error))?;
        let envelope: Envelope<T> = serde_json::from_slice(&answer).map_err(|error| {
            let reason = error.to_string();
            Unreachable::new(&RequestError::Refused { to: self.name.clone(), reason })
        })?;
        // Before Raft hears of it: what a log has promised is remembered first.
        self.node.remember(&self.name, envelope.reached.as_ref());
        Ok(envelope.body)
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = String;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = if request.entries.is_empty() {
            option.hard_ttl()
        } else {
            option.hard_ttl().max(APPEND_DEADLINE)
        };
        Ok(self.call(Channel::Raft, Rpc::Append(request), deadline).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Channel::Raft, Rpc::Vote(request), option.hard_ttl()).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Channel::Raft, Rpc::PreVote(request), option.hard_ttl()).await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(Channel::Raft, Rpc::Transfer(request), option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, String>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let rpc = Rpc::Snapshot { vote, meta: snapshot.meta, state: snapshot.snapshot };
        Ok(self.call(Channel::Snapshot, rpc, option.hard_ttl()).await?)
    }
}
