//! Tests the queue with real threads; `interleavings.rs` explores its interleavings.
//!
//! These tests are here because `queue.rs` is also compiled for the model checker, where no real thread may use it.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::queue::{Patience, Queue, Refusal, Table};

#[test]
fn a_thread_s_second_turn_is_refused_and_the_first_goes_on() {
    let queue = Queue::new();
    queue.enter(Patience::Forever).unwrap();
    assert_eq!(queue.enter(Patience::Forever), Err(Refusal::WouldWaitForItself));
    queue.leave();
    queue.enter(Patience::None).unwrap();
}

#[test]
fn turns_come_in_the_order_of_arrival_and_one_that_left_does_not_block_the_others() {
    let queue = Queue::new();
    let (done, order) = mpsc::channel();
    queue.enter(Patience::Forever).unwrap();
    thread::scope(|scope| {
        for number in 0..6 {
            let (queue, done) = (&queue, done.clone());
            let patience = if number % 2 == 0 {
                Patience::Forever
            } else {
                Patience::Until(Instant::now() + Duration::from_millis(1))
            };
            scope.spawn(move || {
                let entered = queue.enter(patience);
                done.send((number, entered.is_ok())).unwrap();
                if entered.is_ok() {
                    queue.leave();
                }
            });
            // Every thread is in the queue, or has left it, before the next one arrives.
            while queue.arrivals() < number + 2 {
                thread::yield_now();
            }
        }
        let left: Vec<(u64, bool)> = order.iter().take(3).collect();
        assert!(left.iter().all(|(number, entered)| number % 2 == 1 && !entered), "{left:?}");
        queue.leave();
        let came: Vec<(u64, bool)> = order.iter().take(3).collect();
        assert_eq!(came, [(0, true), (2, true), (4, true)]);
    });
}

#[test]
fn handles_share_a_queue_only_while_one_is_alive() {
    let table = Table::new();
    let first = table.queue_of((7, 7));
    assert!(Arc::ptr_eq(&first, &table.queue_of((7, 7))));
    first.enter(Patience::Forever).unwrap();
    drop(first);
    table.queue_of((7, 7)).enter(Patience::None).unwrap();
}
