//! How the silence of a server is noticed, by a clock that the tests set.

use super::*;

/// A connection without a socket, that its server allows so many requests on.
fn connection(inflight_requests_max: u32) -> Arc<Shared> {
    Arc::new(Shared {
        state: Mutex::default(),
        slots: Semaphore::new(8),
        room: Semaphore::new(8),
        wake_writer: Notify::new(),
        stop_reader: Notify::new(),
        is_broken: AtomicBool::new(false),
        frames_read: AtomicU64::new(0),
        bytes_read: AtomicU64::new(0),
        made: Instant::now(),
        silent_since: AtomicU64::new(0),
        wake_watcher: Notify::new(),
        limits: Limits {
            key_bytes_max: 1024,
            value_bytes_max: 1024,
            frame_bytes_max: 4096,
            inflight_requests_max,
            scan_rows_max: 10,
        },
    })
}

/// Something is asked, as [`Connection::submit`] does.
fn ask(shared: &Shared) {
    let mut state = shared.lock();
    if state.is_idle() {
        shared.break_silence();
    }
    state.last_id += 1;
    let (id, end) = (state.last_id, state.queued);
    let (reply, _) = oneshot::channel();
    state.waiting.insert(id, Waiting { reply, end });
    drop(state);
    shared.wake_watcher.notify_one();
}

/// A reply to the `Ping` that is under way comes, if one is.
fn answer_ping(shared: &Shared) {
    if shared.lock().ping.take().is_some() {
        shared.break_silence();
    }
}

async fn pass(millis: u64) {
    // Millisecond by millisecond, so that no timer comes late.
    for _ in 0..millis {
        tokio::time::advance(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
    }
}

/// How many milliseconds pass until the connection is given up.
async fn given_up_after(shared: &Shared) -> u64 {
    for millis in 0..5000 {
        if shared.is_broken.load(Ordering::Acquire) {
            return millis;
        }
        pass(1).await;
    }
    panic!("it is not given up");
}

fn watched(inflight_requests_max: u32) -> Arc<Shared> {
    let shared = connection(inflight_requests_max);
    tokio::spawn(tasks::watch(shared.clone(), Duration::from_millis(400)));
    shared
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_last_byte() {
    // Wherever in the watcher's round the last byte falls.
    for last in (0..700).step_by(37) {
        let shared = watched(8);
        pass(1000).await;
        ask(&shared);
        for _ in 0..last {
            pass(1).await;
            shared.break_silence();
        }
        let after = given_up_after(&shared).await;
        assert!((400..=404).contains(&after), "{last}: {after}");
        assert!(shared.lock().ping.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn answered_pings_are_enough() {
    let shared = watched(2);
    ask(&shared);
    for _ in 0..5000 {
        pass(1).await;
        answer_ping(&shared);
    }
    assert!(!shared.is_broken.load(Ordering::Acquire));
    // The last one was answered within half the time.
    let after = given_up_after(&shared).await;
    assert!((200..=404).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_asked_is_waited_for() {
    let shared = watched(1);
    ask(&shared);
    pass(5000).await;
    assert!(!shared.is_broken.load(Ordering::Acquire));
    assert!(shared.lock().ping.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_this_process_is_not_the_servers() {
    let shared = watched(8);
    ask(&shared);
    pass(399).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::task::yield_now().await;
    assert!(!shared.is_broken.load(Ordering::Acquire));
    let after = given_up_after(&shared).await;
    assert!((200..=404).contains(&after), "{after}");
}
