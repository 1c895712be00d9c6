//! The writer against a server that refuses as often as it is told.

use std::time::Instant;

use super::*;

/// How long a writer may take until nothing of it runs.
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// A server that refuses so many connections before it serves.
struct Server {
    refuses: Cell<u64>,
    connected: Rc<Cell<u64>>,
}

impl Target for Server {
    const KIND: Kind = Kind::Mysql;
    type Conn = ();

    async fn connect(&self) -> Result<((), String), String> {
        self.connected.set(self.connected.get() + 1);
        match self.refuses.get() {
            0 => Ok(((), "1".into())),
            left => {
                self.refuses.set(left - 1);
                Err("refused".into())
            }
        }
    }

    async fn write(&self, _: &mut (), _: u64) -> Result<(), Failure> {
        Ok(())
    }
}

/// What `clients` record whose server refuses the first so many connections, when the turns of `ids` begin at once; and how
/// often they connected.
fn play(clients: u64, period: Duration, refuses: u64, ids: std::ops::Range<u64>) -> (Vec<Write>, u64) {
    let origin = Origin::new();
    let options = LoadOptions { clients, period, ..LoadOptions::every_10_ms(origin) };
    let (history, progress) = (Rc::new(RefCell::new(History::default())), Arc::new(Progress::default()));
    let connected = Rc::new(Cell::new(0));
    let server = Server { refuses: Cell::new(refuses), connected: Rc::clone(&connected) };
    let address = "192.0.2.1:3306".parse().unwrap();
    let writer = writer(&options, address, server, &history, &progress);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        for id in ids {
            writer.start(id, origin.now_us(), options.in_flight_max);
        }
        let until = Instant::now() + QUIET_WITHIN;
        while writer.in_flight.get() > 0 {
            assert!(Instant::now() < until, "the writer does not come to rest");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    (history.take().writes, connected.get())
}

fn acknowledged(writes: &[Write]) -> Vec<bool> {
    writes.iter().map(|write| write.outcome == Outcome::Acknowledged).collect()
}

#[test]
fn one_of_several_clients_tries_again_at_once_until_it_is_acknowledged() {
    // Its next turn is an hour away: whoever waited for it would never come to rest.
    let (writes, connected) = play(2, Duration::from_secs(1_800), 3, 0..1);
    assert_eq!(acknowledged(&writes), [false, false, false, true], "{writes:?}");
    assert_eq!(connected, 4, "each attempt connects anew");
    assert!(writes.iter().all(|write| write.intended_us == writes[0].intended_us), "{writes:?}");
    let ids: Vec<u64> = writes.iter().map(|write| write.id).collect();
    assert_eq!(ids, [0, RETRY_IDS, RETRY_IDS + 1, RETRY_IDS + 2]);
    assert!(writes.windows(2).all(|pair| pair[0].ended_us < pair[1].started_us), "{writes:?}");
}

#[test]
fn a_client_gives_up_when_its_next_turn_is_near() {
    let (writes, _) = play(2, Duration::from_millis(100), u64::MAX, 0..1);
    assert!(!writes.is_empty() && acknowledged(&writes).iter().all(|is| !is), "{writes:?}");
}

#[test]
fn clients_retry_each_for_itself() {
    let (writes, _) = play(3, Duration::from_secs(1_800), 4, 0..3);
    let done: Vec<&Write> = writes.iter().filter(|write| write.outcome == Outcome::Acknowledged).collect();
    let turns: std::collections::BTreeSet<u64> = writes.iter().map(|write| write.intended_us).collect();
    assert_eq!((done.len(), writes.len()), (3, 7), "{writes:?}");
    assert!(turns.len() <= 3, "{writes:?}");
    let ids: std::collections::BTreeSet<u64> = writes.iter().map(|write| write.id).collect();
    assert_eq!(ids.len(), writes.len(), "no id is used twice");
}

#[test]
fn a_pool_never_tries_again() {
    let (writes, connected) = play(1, Duration::from_secs(1_800), 2, 0..2);
    assert_eq!(acknowledged(&writes), [false, false], "{writes:?}");
    assert_eq!((connected, writes[0].id, writes[1].id), (2, 0, 1));
}
