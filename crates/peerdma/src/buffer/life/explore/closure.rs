//! Breadth-first search to closure.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;
use std::collections::HashMap;
use std::io::Write;

/// Something with states and moves.
pub(super) trait World: Clone + Eq + Hash + Debug {
    type Move: Copy + Debug;

    /// Everything that may be tried here.
    fn moves(&self) -> Vec<Self::Move>;

    /// Where it leads; `None` if it is refused, which changes nothing. An error is a broken promise.
    fn after(&self, chosen: Self::Move) -> Result<Option<Self>, String>;
}

/// One transition.
pub(super) struct Edge<M> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) by: M,
}

/// All states and transitions.
pub(super) struct Closure<W: World> {
    pub(super) states: Vec<W>,
    pub(super) edges: Vec<Edge<W::Move>>,
    /// The edge that first led to each state; none to those it began with.
    first: Vec<Option<usize>>,
}

impl<W: World> Closure<W> {
    /// Everything that follows from `beginnings`; more than `most` states are taken for a search that does not end.
    pub(super) fn of(name: &str, beginnings: Vec<W>, most: usize) -> Result<Self, String> {
        let mut closure = Self { states: Vec::new(), edges: Vec::new(), first: Vec::new() };
        let mut known = HashMap::new();
        let mut queue = VecDeque::new();
        for state in beginnings {
            let _ = closure.number(&mut known, &mut queue, state, None);
        }
        while let Some(from) = queue.pop_front() {
            if closure.states.len() > most {
                return Err(format!("{name}: more than {most} states"));
            }
            let state = closure.states[from].clone();
            for by in state.moves() {
                let next =
                    state.after(by).map_err(|what| format!("{name}: {what}\n{}", closure.way(from, Some(by))))?;
                let Some(next) = next else { continue };
                let edge = Some(closure.edges.len());
                let to = closure.number(&mut known, &mut queue, next, edge);
                closure.edges.push(Edge { from, to, by });
            }
        }
        // Past the test runner, which swallows what tests that pass print.
        let counts = format!("{name}: {} states, {} transitions", closure.states.len(), closure.edges.len());
        writeln!(std::io::stderr(), "{counts}").map_err(|error| format!("{error}"))?;
        Ok(closure)
    }

    fn number(
        &mut self,
        known: &mut HashMap<W, usize>,
        queue: &mut VecDeque<usize>,
        state: W,
        edge: Option<usize>,
    ) -> usize {
        if let Some(&number) = known.get(&state) {
            return number;
        }
        let number = self.states.len();
        known.insert(state.clone(), number);
        self.states.push(state);
        self.first.push(edge);
        queue.push_back(number);
        number
    }

    /// From which states one that is `wanted` can be reached by transitions that `may` be taken.
    pub(super) fn can_reach(&self, wanted: impl Fn(&W) -> bool, may: impl Fn(&Edge<W::Move>) -> bool) -> Vec<bool> {
        let mut into = vec![Vec::new(); self.states.len()];
        for edge in self.edges.iter().filter(|edge| may(edge)) {
            into[edge.to].push(edge.from);
        }
        let mut can: Vec<bool> = self.states.iter().map(wanted).collect();
        let mut queue: Vec<usize> = (0..can.len()).filter(|&state| can[state]).collect();
        while let Some(state) = queue.pop() {
            for &before in &into[state] {
                if !can[before] {
                    can[before] = true;
                    queue.push(before);
                }
            }
        }
        can
    }

    /// Fails with the way to the first state of which `holds` is not true.
    pub(super) fn all(&self, claim: &str, holds: impl Fn(usize, &W) -> bool) -> Result<(), String> {
        match self.states.iter().enumerate().find(|(number, state)| !holds(*number, state)) {
            Some((number, _)) => Err(format!("not true: {claim}\n{}", self.way(number, None))),
            None => Ok(()),
        }
    }

    /// The moves that led to a state, the state, and the move tried there.
    fn way(&self, to: usize, then: Option<W::Move>) -> String {
        let mut moves = Vec::new();
        let mut at = to;
        while let Some(edge) = self.first[at].map(|edge| &self.edges[edge]) {
            moves.push(format!("{:?}", edge.by));
            at = edge.from;
        }
        moves.reverse();
        format!("after: {}\nat: {:?}\nthen: {then:?}", moves.join("\n       "), self.states[to])
    }
}
