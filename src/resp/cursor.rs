//! Cursors of `SCAN`: numbers that name the positions of scans that are under way.
//!
//! A position is a key, which no number holds, so a core remembers the positions of its scans. A scan has
//! a place in a table, and keeps two positions: that behind its newest page, and the one before, so
//! that a client which has lost a page can ask for it again. The cursor says where:
//!
//! ```text
//!  52        43 42             27 26          14 13          0
//!  +-----------+-----------------+--------------+------------+
//!  | core, 10  | place, 16 bits  | nonce, 13    | step, 14   |     below 2^53: exact in JSON too
//!  +-----------+-----------------+--------------+------------+
//! ```
//!
//! The nonce tells apart the scans that have had a place one after the other, and is never zero. The
//! table has [`SCANS_MAX`] places and [`BYTES_MAX`] of keys: the scan that was not asked for the longest
//! time is forgotten first, and its cursor is then refused: the client has to begin anew. A core that
//! is asked for the cursor of another core has the page made there, and remembers what is behind
//! it itself.

use std::collections::VecDeque;

/// Scans that a core remembers.
pub(crate) const SCANS_MAX: usize = 1 << 14;
/// Bytes of keys that a core remembers for them.
const BYTES_MAX: usize = 8 << 20;

const STEP_BITS: u32 = 14;
const NONCE_BITS: u32 = 13;
const PLACE_BITS: u32 = 16;
const CORE_BITS: u32 = 10;

/// A cursor, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) core: u16,
    place: u16,
    nonce: u16,
    step: u16,
}

impl Cursor {
    /// As clients see it; never 0.
    pub(crate) fn number(self) -> u64 {
        let parts = [
            (u64::from(self.core), PLACE_BITS),
            (u64::from(self.place), NONCE_BITS),
            (u64::from(self.nonce), STEP_BITS),
        ];
        let joined = parts
            .iter()
            .fold(0, |all, (part, shift)| (all | part) << shift);
        joined | u64::from(self.step)
    }

    /// The cursor of this number, if it may be one.
    pub(crate) fn of(number: u64) -> Option<Self> {
        let mut rest = number;
        let mut take = |bits: u32| {
            let part = rest & ((1 << bits) - 1);
            rest >>= bits;
            part as u16
        };
        let (step, nonce) = (take(STEP_BITS), take(NONCE_BITS));
        let (place, core) = (take(PLACE_BITS), take(CORE_BITS));
        (rest == 0 && nonce != 0).then_some(Self {
            core,
            place,
            nonce,
            step,
        })
    }
}

#[derive(Debug, Default)]
struct Scan {
    nonce: u16,
    step: u16,
    /// Behind the newest page, and behind the one before.
    newest: Box<[u8]>,
    before: Option<Box<[u8]>>,
    /// When it was last asked for, in uses of the table.
    used: u64,
}

impl Scan {
    fn bytes(&self) -> usize {
        self.newest.len() + self.before.as_ref().map_or(0, |before| before.len())
    }
}

/// The scans that a core remembers.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    core: u16,
    places: Vec<Scan>,
    free: Vec<u16>,
    /// Places with when each was used, oldest first; those since used again are passed over.
    uses: VecDeque<(u16, u64)>,
    used: u64,
    bytes: usize,
    nonce: u16,
}

impl Cursors {
    /// Those of a core, none yet. `seed` is random, so that cursors of a former start are not taken for
    /// new ones.
    pub(crate) fn new(core: u16, seed: u64) -> Self {
        Self {
            core,
            nonce: seed as u16,
            ..Self::default()
        }
    }

    /// The position that a cursor of this core names.
    pub(crate) fn position(&mut self, cursor: Cursor) -> Option<&[u8]> {
        self.use_place(cursor)?;
        let scan = &self.places[usize::from(cursor.place)];
        if scan.step == cursor.step {
            return Some(&scan.newest);
        }
        let before = scan.before.as_deref();
        before.filter(|_| next_step(cursor.step) == scan.step)
    }

    /// Remembers the position behind a page, which was asked for by `asked` (of this core or another; `None`
    /// for the first page).
    pub(crate) fn remember(&mut self, asked: Option<Cursor>, position: &[u8]) -> Cursor {
        let asked = asked.filter(|asked| asked.core == self.core);
        let going_on = asked.filter(|asked| {
            let scan = self.places.get(usize::from(asked.place));
            scan.is_some_and(|scan| scan.nonce == asked.nonce && scan.step == asked.step)
        });
        let place = match going_on {
            Some(asked) => asked.place,
            None => self.begin(),
        };
        let scan = &mut self.places[usize::from(place)];
        self.bytes -= scan.bytes();
        if going_on.is_some() {
            scan.before = Some(std::mem::take(&mut scan.newest));
            scan.step = next_step(scan.step);
        }
        scan.newest = position.into();
        self.bytes += scan.bytes();
        let cursor = Cursor {
            core: self.core,
            place,
            nonce: scan.nonce,
            step: scan.step,
        };
        self.use_place(cursor);
        while self.bytes > BYTES_MAX && self.forget_oldest(Some(place)) {}
        cursor
    }

    /// A page that a cursor was asked for was the last: nothing need be remembered.
    pub(crate) fn finished(&mut self, asked: Cursor) {
        let scan = self.places.get(usize::from(asked.place));
        if asked.core == self.core && scan.is_some_and(|scan| scan.nonce == asked.nonce) {
            self.forget(asked.place);
        }
    }

    fn begin(&mut self) -> u16 {
        if self.free.is_empty() && self.places.len() >= SCANS_MAX {
            self.forget_oldest(None);
        }
        self.nonce = (self.nonce + 1) & ((1 << NONCE_BITS) - 1);
        self.nonce = self.nonce.max(1);
        let scan = Scan {
            nonce: self.nonce,
            ..Scan::default()
        };
        match self.free.pop() {
            Some(place) => {
                self.places[usize::from(place)] = scan;
                place
            }
            None => {
                self.places.push(scan);
                (self.places.len() - 1) as u16
            }
        }
    }

    fn use_place(&mut self, cursor: Cursor) -> Option<()> {
        let scan = self.places.get_mut(usize::from(cursor.place))?;
        if scan.nonce != cursor.nonce {
            return None;
        }
        self.used += 1;
        scan.used = self.used;
        self.uses.push_back((cursor.place, self.used));
        if self.uses.len() > 4 * SCANS_MAX {
            let places = &self.places;
            self.uses
                .retain(|&(place, used)| places[usize::from(place)].used == used);
        }
        Some(())
    }

    /// Forgets the scan that was not used for the longest time, but not `spared`.
    fn forget_oldest(&mut self, spared: Option<u16>) -> bool {
        while let Some((place, used)) = self.uses.pop_front() {
            if self.places[usize::from(place)].used != used {
                continue;
            }
            if spared == Some(place) {
                self.uses.push_front((place, used));
                return false;
            }
            self.forget(place);
            return true;
        }
        false
    }

    fn forget(&mut self, place: u16) {
        let scan = std::mem::take(&mut self.places[usize::from(place)]);
        self.bytes -= scan.bytes();
        self.free.push(place);
    }
}

fn next_step(step: u16) -> u16 {
    (step + 1) & ((1 << STEP_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_goes_on_and_its_last_page_can_be_asked_for_again() {
        let mut cursors = Cursors::new(5, 77);
        let first = cursors.remember(None, b"a");
        assert_eq!(Cursor::of(first.number()), Some(first));
        assert!(first.number() < 1 << 53 && first.core == 5);
        let second = cursors.remember(Some(first), b"b");
        assert_eq!(cursors.position(second), Some(&b"b"[..]));
        assert_eq!(cursors.position(first), Some(&b"a"[..]), "once more");
        let third = cursors.remember(Some(second), b"c");
        assert_eq!(cursors.position(first), None, "two pages ago");
        // Somebody goes on from the page before: a scan of its own.
        let fork = cursors.remember(Some(second), b"x");
        assert_eq!(cursors.position(fork), Some(&b"x"[..]));
        assert_eq!(cursors.position(third), Some(&b"c"[..]));
        cursors.finished(third);
        assert_eq!(cursors.position(third), None);
        let reused = cursors.remember(None, b"y");
        assert_eq!(
            cursors.position(third),
            None,
            "the place is another scan's now"
        );
        assert_eq!(cursors.position(reused), Some(&b"y"[..]));
    }

    #[test]
    fn numbers_that_are_no_cursors() {
        assert_eq!(Cursor::of(0), None);
        assert_eq!(Cursor::of(u64::MAX), None);
        assert_eq!(Cursor::of(1 << 53), None);
        let mut cursors = Cursors::new(0, 1);
        let unknown = Cursor::of(1 << STEP_BITS).unwrap();
        assert_eq!(cursors.position(unknown), None);
    }

    #[test]
    fn scans_and_bytes_are_bounded() {
        let mut cursors = Cursors::new(0, 1);
        let kept = cursors.remember(None, b"kept");
        let lost = cursors.remember(None, b"lost");
        for _ in 0..SCANS_MAX - 2 {
            cursors.remember(None, b"other");
        }
        assert!(cursors.position(kept).is_some(), "and so it is used");
        cursors.remember(None, b"one more");
        assert_eq!(cursors.position(lost), None);
        assert!(cursors.position(kept).is_some());
        let big = vec![b'x'; 64 << 10];
        for _ in 0..1000 {
            cursors.remember(None, &big);
        }
        assert!(cursors.bytes <= BYTES_MAX, "{}", cursors.bytes);
        assert!(cursors.uses.len() <= 4 * SCANS_MAX + 1);
    }
}
