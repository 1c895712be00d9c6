//! The visitor against a server that fails where it is told to.

use std::future::pending;
use std::time::Instant;

use tokio::task::LocalSet;

use super::*;
use crate::history::Kind;
use crate::load::Failure;

/// How long the visits of a test may take until none of them runs.
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// How far a visit gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    RefusesReads,
    RefusesConnections,
    HangsAtRead,
    HangsAtConnect,
}

struct Server {
    mood: Mood,
    closed: Rc<Cell<usize>>,
}

impl Target for Server {
    const KIND: Kind = Kind::Redis;
    type Conn = ();

    async fn connect(&self) -> Result<((), String), String> {
        Err("a visit does not ask for the server's name".into())
    }

    async fn write(&self, _: &mut (), _: u64) -> Result<(), Failure> {
        Err(Failure::Refused("a visit does not write".into()))
    }
}

impl Visited for Server {
    async fn open(&self) -> Result<(), String> {
        match self.mood {
            Mood::RefusesConnections => Err("refused".into()),
            Mood::HangsAtConnect => pending().await,
            Mood::Well | Mood::RefusesReads | Mood::HangsAtRead => Ok(()),
        }
    }

    async fn read(&self, _: &mut ()) -> Result<(), String> {
        match self.mood {
            Mood::RefusesReads => Err("loading".into()),
            Mood::HangsAtRead => pending().await,
            Mood::Well | Mood::RefusesConnections | Mood::HangsAtConnect => Ok(()),
        }
    }

    async fn close(&self, _: ()) {
        self.closed.set(self.closed.get() + 1);
    }
}

/// What so many visits record that begin at once, and how many connections were closed.
fn play(mood: Mood, visits: usize) -> (Vec<Visit>, usize) {
    let origin = Origin::new();
    let options = LoadOptions { limit: Duration::from_millis(50), ..LoadOptions::every_10_ms(origin) };
    let history = Rc::new(RefCell::new(History::default()));
    let closed = Rc::new(Cell::new(0));
    let visitor = Visitor::new(&options, Server { mood, closed: Rc::clone(&closed) }, &history);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        for _ in 0..visits {
            visitor.start(origin.now_us());
        }
        let until = Instant::now() + QUIET_WITHIN;
        while visitor.under_way.get() > 0 {
            assert!(Instant::now() < until, "the visitor does not come to rest");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    (history.take().visits, closed.get())
}

#[test]
fn a_visit_says_how_far_it_came() {
    let wanted = [
        (Mood::Well, (true, true), None, 1),
        (Mood::RefusesReads, (true, false), Some("loading"), 1),
        (Mood::RefusesConnections, (false, false), Some("refused"), 0),
        (Mood::HangsAtRead, (true, false), Some("time-out at read"), 1),
        (Mood::HangsAtConnect, (false, false), Some("time-out at connect"), 0),
    ];
    for (mood, came, error, closes) in wanted {
        let (visits, closed) = play(mood, 1);
        let [visit] = &visits[..] else { panic!("{mood:?}: {visits:?}") };
        assert_eq!((visit.connected_us.is_some(), visit.read_us.is_some()), came, "{mood:?}");
        assert_eq!(visit.error.as_deref(), error, "{mood:?}");
        assert_eq!(closed, closes, "{mood:?}");
        assert!(visit.connected_us.is_none_or(|at| at >= visit.intended_us), "{visit:?}");
        assert!(visit.read_us.is_none_or(|at| Some(at) >= visit.connected_us), "{visit:?}");
    }
}

#[test]
fn one_that_hangs_does_not_keep_the_next_from_beginning_and_the_cap_is_said() {
    let (visits, _) = play(Mood::HangsAtConnect, UNDER_WAY_MAX + 2);
    assert_eq!(visits.len(), UNDER_WAY_MAX + 2);
    let said = |words: &str| visits.iter().filter(|visit| visit.error.as_deref() == Some(words)).count();
    assert_eq!((said("time-out at connect"), said("too many visits under way")), (UNDER_WAY_MAX, 2));
}

#[test]
fn visitors_go_at_every_nth_turn_or_never() {
    let options = LoadOptions::every_10_ms(Origin::new());
    let history = Rc::new(RefCell::new(History::default()));
    let turns = |visit_every: Option<Duration>| {
        Visitors::new(&LoadOptions { visit_every, ..options.clone() }, &history).turns
    };
    assert_eq!(turns(Some(Duration::from_millis(50))), 5);
    assert_eq!(turns(Some(Duration::from_millis(1))), 1, "not oftener than the writer");
    let nobody = Visitors::new(&options, &history);
    nobody.turn(0, 0);
    assert_eq!((nobody.under_way(), history.borrow().visits.len()), (0, 0));
}
