//! Unit tests of the flight recorder.

use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn inputs(path: &Path) -> Vec<Line<u64>> {
    read(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn start(resumed: bool) -> Line<u64> {
    Line::Start { resumed, header: serde_json::json!({"node": "db1"}) }
}

fn header() -> serde_json::Value {
    serde_json::json!({"node": "db1"})
}

#[test]
fn inputs_are_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(dir.path(), &header()).unwrap();
    for number in 0..100u64 {
        recorder.record(&number);
    }
    assert!(recorder.flush(PATIENCE));
    let expected: Vec<Line<u64>> = std::iter::once(start(false)).chain((0..100).map(Line::Input)).collect();
    assert_eq!(inputs(dir.path()), expected);
    assert_eq!(recorder.dropped(), 0);
}

#[test]
fn ring_is_bounded_and_every_file_begins_with_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { file_bytes: 200, files: 3 };
    let recorder = Recorder::start_with(dir.path(), &header(), limits, 4_096, EVERY).unwrap();
    for number in 0..200u64 {
        recorder.record(&number);
    }
    assert!(recorder.flush(PATIENCE));
    let kept = files(dir.path()).unwrap();
    assert_eq!(kept.len(), 3);
    for file in &kept {
        assert_eq!(inputs(file).first(), Some(&start(true)));
    }
    assert_eq!(inputs(dir.path()).last(), Some(&Line::Input(199)));
}

/// By itself the thread would look again after an hour.
#[test]
fn what_led_to_something_waits_for_no_look() {
    let dir = tempfile::tempdir().unwrap();
    let seldom = Duration::from_secs(3600);
    let recorder = Recorder::start_with(dir.path(), &header(), LIMITS, QUEUE_INPUTS, seldom).unwrap();
    let bytes = || std::fs::read(files(dir.path()).unwrap().remove(0)).unwrap().len();
    assert!(recorder.flush(PATIENCE));
    // Once is not enough: it may come before the thread has gone to sleep.
    for number in 0..100u64 {
        let before = bytes();
        recorder.record(&number);
        recorder.hasten();
        let began = std::time::Instant::now();
        while bytes() == before {
            assert!(began.elapsed() < PATIENCE, "{number} is not written");
            std::thread::yield_now();
        }
    }
}

#[test]
fn restart_goes_on_after_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let first = Recorder::start(dir.path(), &header()).unwrap();
    first.record(&1u64);
    assert!(first.flush(PATIENCE));
    let file = files(dir.path()).unwrap().remove(0);
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(br#"{"input":"#);
    std::fs::write(&file, text).unwrap();

    let second = Recorder::start(dir.path(), &header()).unwrap();
    second.record(&2u64);
    assert!(second.flush(PATIENCE));
    let lines: Vec<Result<Line<u64>, ReadError>> = read(dir.path()).unwrap().collect();
    assert!(
        matches!(lines[2], Err(ReadError::Line { line: 3, .. })),
        "the torn line is named: {:?}",
        lines[2]
    );
    let good: Vec<Line<u64>> = lines.into_iter().filter_map(Result::ok).collect();
    assert_eq!(good, [start(false), Line::Input(1), start(false), Line::Input(2)]);
}

#[test]
fn torn_end_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("0000000001.jsonl");
    std::fs::write(&file, "{\"input\":7}\n{\"inp").unwrap();
    assert_eq!(inputs(&file), [Line::Input(7)]);
}

/// With nobody to take lines off the queue, the surplus is dropped and counted, and the caller never waits.
#[test]
fn full_queue_drops_and_counts() {
    let (queue, messages) = sync_channel(2);
    let recorder = Recorder { queue, dropped: Arc::default(), writer: std::thread::current() };
    for number in 0..10u64 {
        recorder.record(&number);
    }
    assert_eq!(recorder.dropped(), 8);

    let dir = tempfile::tempdir().unwrap();
    let ring = Ring::open(dir.path(), header(), LIMITS).unwrap();
    let counter = Arc::clone(&recorder.dropped);
    drop(recorder);
    write_lines(ring, &messages, &counter, EVERY);
    let lines = inputs(dir.path());
    assert!(lines.contains(&Line::Dropped(8)), "{lines:?}");
    assert!(lines.contains(&Line::Input(1)), "{lines:?}");
}

#[test]
fn empty_directory_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read::<u64>(dir.path()), Err(ReadError::Empty { .. })));
}
