//! The channel from the poller's thread to the one who reads its events. Records have a share of it and stop flowing
//! when that is full; what must be told is told in a reserve behind it, and if even that is full, later.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::poller::PollerEvent;

/// Events that are not records may always be told; so many of them may be unread.
const RESERVE: usize = 8192;

/// Where events go.
pub(super) struct Outlet {
    events: mpsc::Sender<PollerEvent>,
    backlog: Mutex<VecDeque<PollerEvent>>,
    capacity: usize,
}

impl Outlet {
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<PollerEvent>) {
        let capacity = capacity.max(2);
        let (events, receiver) = mpsc::channel(capacity + RESERVE);
        (Self { events, backlog: Mutex::default(), capacity }, receiver)
    }

    /// Tells it, later if there is no room even in the reserve. Order is kept.
    pub(super) fn tell(&self, event: PollerEvent) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        backlog.push_back(event);
        self.drain(&mut backlog);
    }

    /// Tells it if there is room: for events that are only news.
    pub(super) fn offer(&self, event: PollerEvent) {
        let backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if backlog.is_empty() {
            let _ = self.events.try_send(event);
        }
    }

    pub(super) fn flush(&self) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        self.drain(&mut backlog);
    }

    fn drain(&self, backlog: &mut VecDeque<PollerEvent>) {
        while let Some(event) = backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                backlog.push_front(event);
                return;
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.capacity() <= RESERVE
    }

    pub(super) fn has_room_again(&self) -> bool {
        self.events.capacity() >= RESERVE + self.capacity / 2
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }
}
