//! The channel from the poller thread to the reader of its events. Records may use a part of it; fetching pauses when
//! that part is full. All other events have a reserve, and are queued if that is full, too.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::poller::PollerEvent;

/// Capacity for events that are not records.
const RESERVE: usize = 8192;

/// The sending side of the channel.
pub(super) struct EventChannel {
    sender: mpsc::Sender<PollerEvent>,
    /// Events for which the channel had no room.
    overflow: Mutex<VecDeque<PollerEvent>>,
    capacity: usize,
}

impl EventChannel {
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<PollerEvent>) {
        let capacity = capacity.max(2);
        let (sender, receiver) = mpsc::channel(capacity + RESERVE);
        (Self { sender, overflow: Mutex::default(), capacity }, receiver)
    }

    /// Sends an event, or queues it if the channel is full. The order is kept.
    pub(super) fn send(&self, event: PollerEvent) {
        let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        overflow.push_back(event);
        self.drain(&mut overflow);
    }

    /// Sends an event that may be dropped, if the channel has room.
    pub(super) fn try_send(&self, event: PollerEvent) {
        let overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        if overflow.is_empty() {
            let _ = self.sender.try_send(event);
        }
    }

    /// Sends queued events.
    pub(super) fn flush(&self) {
        let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        self.drain(&mut overflow);
    }

    fn drain(&self, overflow: &mut VecDeque<PollerEvent>) {
        while let Some(event) = overflow.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.sender.try_send(event) {
                overflow.push_front(event);
                return;
            }
        }
    }

    /// Whether the part for records is full.
    pub(super) fn is_full(&self) -> bool {
        self.sender.capacity() <= RESERVE
    }

    /// Whether half of the part for records is free.
    pub(super) fn is_half_free(&self) -> bool {
        self.sender.capacity() >= RESERVE + self.capacity / 2
    }

    /// Whether the reader was dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
