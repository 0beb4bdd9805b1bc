use std::sync::Arc;

use ringbolt_wire::partition_of;

/// Which connections of a thread may carry which keys, so that requests go straight to the core
/// that owns them on the node that leads them.
#[derive(Debug, Clone)]
pub struct Routing {
    /// By partition: its place.
    owners: Arc<[u16]>,
    covered: Vec<bool>,
}

impl Routing {
    /// Every connection carries every key.
    pub fn anywhere() -> Self {
        Self {
            owners: Arc::new([]),
            covered: Vec::new(),
        }
    }

    /// For a thread whose connections lead to `places`; `owners` has each partition's place.
    pub fn new(owners: Arc<[u16]>, places: impl IntoIterator<Item = Option<u16>>) -> Self {
        let count = owners.iter().max().map_or(0, |&last| usize::from(last) + 1);
        let mut covered = vec![false; count];
        for place in places.into_iter().flatten() {
            if let Some(covered) = covered.get_mut(usize::from(place)) {
                *covered = true;
            }
        }
        if covered.len() <= 1 || !covered.contains(&true) {
            return Self::anywhere();
        }
        Self { owners, covered }
    }

    /// Whether keys matter at all.
    pub fn is_anywhere(&self) -> bool {
        self.covered.is_empty()
    }

    /// The place that must get this key; `None` if any connection will do (no connection of this
    /// thread leads to its owner).
    pub fn owner(&self, key: &[u8]) -> Option<u16> {
        if self.is_anywhere() {
            return None;
        }
        let partition = partition_of(key, self.owners.len() as u16);
        let place = self.owners[usize::from(partition)];
        self.covered[usize::from(place)].then_some(place)
    }

    /// Whether a connection to `place` may carry this key.
    pub fn fits(&self, key: &[u8], place: Option<u16>) -> bool {
        match (place, self.owner(key)) {
            (Some(place), Some(owner)) => place == owner,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_their_owner_where_one_is_connected() {
        let routing = Routing::new(Arc::new([0, 0, 1, 1]), [Some(0), Some(1)]);
        let fits = |place| {
            (0..1000u32)
                .filter(|i| routing.fits(i.to_string().as_bytes(), Some(place)))
                .count()
        };
        assert_eq!(fits(0) + fits(1), 1000);
        assert!(fits(0) > 300 && fits(1) > 300);
    }

    #[test]
    fn keys_of_unconnected_places_go_anywhere() {
        let routing = Routing::new(Arc::new([0, 0, 1, 1]), [Some(0)]);
        for i in 0..1000u32 {
            assert!(routing.fits(i.to_string().as_bytes(), Some(0)));
        }
        assert!(Routing::new(Arc::new([0, 0]), [Some(0)]).is_anywhere());
        assert!(Routing::new(Arc::new([0, 1]), [None, None]).is_anywhere());
    }
}
