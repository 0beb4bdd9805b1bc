//! Maximum flow in a small network whose edges have upper and lower bounds.
//!
//! An edge that must carry at least `low` carries it from the outset: what enters its end and what is
//! owed at its start is settled by an extra source and sink. The bounds can be met exactly when
//! everything that leaves the extra source arrives (Dinic's algorithm: breadth-first levels, then
//! blocking flows along them). Integer bounds give an integer flow.

use std::collections::VecDeque;

/// A vertex's number.
pub(super) type Vertex = usize;

struct Edge {
    to: Vertex,
    /// What it can still carry.
    room: u64,
}

/// A network under construction.
pub(super) struct Network {
    /// An edge and its reverse are neighbours: `e ^ 1` is the other.
    edges: Vec<Edge>,
    out: Vec<Vec<usize>>,
    /// What lower bounds bring to each vertex, less what they take from it.
    surplus: Vec<i64>,
}

/// A vertex's place in no level.
const UNREACHED: usize = usize::MAX;

impl Network {
    /// A network of this many vertices and no edges.
    pub(super) fn new(vertices: usize) -> Self {
        Self {
            edges: Vec::new(),
            out: vec![Vec::new(); vertices],
            surplus: vec![0; vertices],
        }
    }

    /// Adds an edge that carries `low..=high`. Returns its number.
    pub(super) fn edge(&mut self, from: Vertex, to: Vertex, low: u64, high: u64) -> usize {
        debug_assert!(low <= high);
        self.surplus[to] += low as i64;
        self.surplus[from] -= low as i64;
        self.arc(from, to, high - low)
    }

    fn arc(&mut self, from: Vertex, to: Vertex, room: u64) -> usize {
        let number = self.edges.len();
        self.edges.push(Edge { to, room });
        self.edges.push(Edge { to: from, room: 0 });
        self.out[from].push(number);
        self.out[to].push(number + 1);
        number
    }

    /// Finds a flow within all bounds that is conserved at every vertex; false if there is none.
    /// Edges added earlier are tried first.
    pub(super) fn circulate(&mut self) -> bool {
        let (source, sink) = (self.out.len(), self.out.len() + 1);
        self.out.push(Vec::new());
        self.out.push(Vec::new());
        let mut owed = 0;
        for vertex in 0..source {
            let surplus = self.surplus[vertex];
            if surplus > 0 {
                owed += surplus.unsigned_abs();
                self.arc(source, vertex, surplus.unsigned_abs());
            } else if surplus < 0 {
                self.arc(vertex, sink, surplus.unsigned_abs());
            }
        }
        while let Some(levels) = self.levels(source, sink) {
            let mut next = vec![0; self.out.len()];
            while let Some(sent) = self.augment(source, sink, &levels, &mut next) {
                owed -= sent;
            }
        }
        owed == 0
    }

    /// What an edge carries beyond its lower bound.
    pub(super) fn carried(&self, edge: usize) -> u64 {
        self.edges[edge ^ 1].room
    }

    /// Each vertex's distance from the source over edges with room; `None` if the sink has none.
    fn levels(&self, source: Vertex, sink: Vertex) -> Option<Vec<usize>> {
        let mut levels = vec![UNREACHED; self.out.len()];
        levels[source] = 0;
        let mut todo = VecDeque::from([source]);
        while let Some(vertex) = todo.pop_front() {
            for edge in self.out[vertex].iter().map(|e| &self.edges[*e]) {
                if edge.room > 0 && levels[edge.to] == UNREACHED {
                    levels[edge.to] = levels[vertex] + 1;
                    todo.push_back(edge.to);
                }
            }
        }
        (levels[sink] != UNREACHED).then_some(levels)
    }

    /// Sends what one more path through the levels can carry; `next` holds how far each vertex's
    /// edges have been tried.
    fn augment(
        &mut self,
        source: Vertex,
        sink: Vertex,
        levels: &[usize],
        next: &mut [usize],
    ) -> Option<u64> {
        let mut path: Vec<usize> = Vec::new();
        let mut vertex = source;
        while vertex != sink {
            let found = self.out[vertex][next[vertex]..].iter().position(|e| {
                let edge = &self.edges[*e];
                edge.room > 0 && levels[edge.to] == levels[vertex] + 1
            });
            match found {
                Some(skipped) => {
                    next[vertex] += skipped;
                    let edge = self.out[vertex][next[vertex]];
                    path.push(edge);
                    vertex = self.edges[edge].to;
                }
                None => {
                    next[vertex] = self.out[vertex].len();
                    let edge = path.pop()?;
                    vertex = self.edges[edge ^ 1].to;
                    next[vertex] += 1;
                }
            }
        }
        let sent = path.iter().map(|e| self.edges[*e].room).min()?;
        for edge in path {
            self.edges[edge].room -= sent;
            self.edges[edge ^ 1].room += sent;
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_met_or_refused() {
        // 0 → 1 → 3 and 0 → 2 → 3, closed by 3 → 0, which must carry exactly 5.
        let build = |through_1, through_2| {
            let mut network = Network::new(4);
            let first = network.edge(0, 1, 0, 4);
            network.edge(0, 2, 2, 4);
            network.edge(1, 3, 0, through_1);
            network.edge(2, 3, 0, through_2);
            network.edge(3, 0, 5, 5);
            (network.circulate(), network.carried(first))
        };
        assert!(build(4, 4).0);
        assert_eq!(build(3, 2), (true, 3));
        assert_eq!(build(1, 4), (true, 1));
        assert!(!build(2, 2).0, "only 4 of 5 get through");
        assert!(!build(4, 1).0, "0 → 2 must carry 2");
    }
}
