use ringbolt_wire::message::Topology;
use ringbolt_wire::partition_of;
use ringbolt_wire::slot::core_of;

/// Which connections of a thread may carry which keys, so that requests go straight to the core
/// that owns them.
#[derive(Debug, Clone)]
pub struct Routing {
    partitions: u16,
    covered: Vec<bool>,
}

impl Routing {
    /// Every connection carries every key.
    pub fn anywhere() -> Self {
        Self {
            partitions: 0,
            covered: Vec::new(),
        }
    }

    /// For a thread whose connections lead to `cores`.
    pub fn new(topology: &Topology, cores: impl IntoIterator<Item = Option<u16>>) -> Self {
        let mut covered = vec![false; usize::from(topology.cores_here())];
        for core in cores.into_iter().flatten() {
            if let Some(covered) = covered.get_mut(usize::from(core)) {
                *covered = true;
            }
        }
        if covered.len() <= 1 || !covered.contains(&true) {
            return Self::anywhere();
        }
        Self {
            partitions: topology.partitions(),
            covered,
        }
    }

    /// Whether keys matter at all.
    pub fn is_anywhere(&self) -> bool {
        self.covered.is_empty()
    }

    /// The core that must get this key; `None` if any connection will do (no connection of this
    /// thread leads to its owner).
    pub fn owner(&self, key: &[u8]) -> Option<u16> {
        if self.is_anywhere() {
            return None;
        }
        let cores = self.covered.len() as u16;
        let core = core_of(partition_of(key, self.partitions), self.partitions, cores);
        self.covered[usize::from(core)].then_some(core)
    }

    /// Whether a connection to `core` may carry this key.
    pub fn fits(&self, key: &[u8], core: Option<u16>) -> bool {
        match (core, self.owner(key)) {
            (Some(core), Some(owner)) => core == owner,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(cores: u16) -> Topology {
        Topology::alone("", cores, 8)
    }

    #[test]
    fn keys_go_to_their_owner_where_one_is_connected() {
        let routing = Routing::new(&topology(2), [Some(0), Some(1)]);
        let fits = |core| {
            (0..1000u32)
                .filter(|i| routing.fits(i.to_string().as_bytes(), Some(core)))
                .count()
        };
        assert_eq!(fits(0) + fits(1), 1000);
        assert!(fits(0) > 300 && fits(1) > 300);
    }

    #[test]
    fn keys_of_unconnected_cores_go_anywhere() {
        let routing = Routing::new(&topology(2), [Some(0)]);
        for i in 0..1000u32 {
            assert!(routing.fits(i.to_string().as_bytes(), Some(0)));
        }
        assert!(Routing::new(&topology(1), [Some(0)]).is_anywhere());
        assert!(Routing::new(&topology(2), [None, None]).is_anywhere());
    }
}
