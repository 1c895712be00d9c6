//! An agent for the tests of the verbs: the API's own server, which shows what a test says and whose orders a test answers.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::api::client::Client;
use crate::api::sample;
use crate::api::server::{COMMANDS_MAX, Operator, bind, serve};
use crate::api::types::{Status, View};

/// It answers for as long as this is kept.
pub(super) struct FakeAgent {
    dir: tempfile::TempDir,
    view: watch::Sender<Arc<View>>,
    orders: mpsc::Receiver<Operator>,
}

impl FakeAgent {
    /// A healthy cluster with the history of one run, number 7.
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = bind(&dir.path().join("baton.sock")).await.unwrap();
        let (view, seen) = watch::channel(Arc::new(sample::view()));
        let (operator, orders) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(serve(listener, seen, operator, pending()));
        Self { dir, view, orders }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.dir.path().join("baton.sock"))
    }

    /// Shows this from now on.
    pub(super) fn shows(&self, status: Status) {
        self.view.send_replace(Arc::new(View { status, ..sample::view() }));
    }

    /// The next order that somebody gives.
    pub(super) async fn order(&mut self) -> Operator {
        self.orders.recv().await.unwrap()
    }
}
