//! openraft's own suite for log stores and state machines, in memory and on a file.
#![allow(clippy::unwrap_used)]

use baton_consensus::machine::Machine;
use baton_consensus::store::{Identity, Opened, Store, in_memory, open};
use baton_consensus::types::{Incarnation, TypeConfig};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

struct Memory;
struct File;

impl StoreBuilder<TypeConfig, Store, Machine, ()> for Memory {
    async fn build(&self) -> Result<((), Store, Machine), StorageError<TypeConfig>> {
        let store = in_memory().unwrap();
        Ok(((), store.clone(), Machine::empty(store)))
    }
}

impl StoreBuilder<TypeConfig, Store, Machine, tempfile::TempDir> for File {
    async fn build(&self) -> Result<(tempfile::TempDir, Store, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            format: 1,
            cluster: "shop".to_owned(),
            node: "db1".into(),
            incarnation: Incarnation("a".to_owned()),
            generation: Default::default(),
            founder: Default::default(),
            raft_id: None,
        };
        match open(dir.path(), identity).unwrap() {
            Opened::Sound { store, machine, .. } => Ok((dir, store, *machine)),
            Opened::Damaged { why } => panic!("{why}"),
        }
    }
}

#[tokio::test]
async fn suite_in_memory() {
    Suite::test_all(Memory).await.unwrap();
}

#[tokio::test]
async fn suite_on_a_file() {
    Suite::test_all(File).await.unwrap();
}
