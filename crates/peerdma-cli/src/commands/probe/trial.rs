//! What engines found, and what that comes to.

use crate::commands::copy::delivery_words;
use crate::commands::emulated::Way;
use crate::document::{AbsentEngineDocument, ProbeRowDocument, StageDocument};
use crate::exit::Exit;
use peerdma::route::{Need, PairVerdict, Permission};
use peerdma_linux::verified::Delivery;

/// One column of one row, with its evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Yes(String),
    No(String),
    /// Nobody asked, or nobody could.
    Unknown(String),
}

impl Stage {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Yes(_) => "yes",
            Self::No(_) => "no",
            Self::Unknown(_) => "unknown",
        }
    }

    pub(super) fn evidence(&self) -> &str {
        match self {
            Self::Yes(why) | Self::No(why) | Self::Unknown(why) => why,
        }
    }

    /// What the destination's owner saw.
    pub(super) fn seen(delivery: &Delivery) -> Self {
        let words = delivery_words(delivery);
        if delivery.is_delivered() { Self::Yes(words) } else { Self::No(words) }
    }

    fn permission(&self) -> Permission {
        match self {
            Self::Yes(_) => Permission::Permitted,
            Self::No(_) => Permission::Refused,
            Self::Unknown(_) => Permission::Unknown,
        }
    }

    fn document(&self) -> StageDocument {
        StageDocument { answer: self.word(), evidence: self.evidence().to_string() }
    }
}

/// One direction by one engine.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) engine: &'static str,
    pub(super) way: Way,
    pub(super) permitted: Permission,
    pub(super) granted: Stage,
    pub(super) verified: Stage,
    pub(super) delivery: Option<Delivery>,
    pub(super) contradiction: Option<String>,
}

impl Row {
    /// Nothing was moved.
    pub(super) fn unmoved(engine: &'static str, way: Way, pair: &PairVerdict, granted: Stage) -> Self {
        let verified = Stage::Unknown("nothing was moved".into());
        Self { engine, way, permitted: permitted(pair, way), granted, verified, delivery: None, contradiction: None }
    }

    /// The engine said that it is done, and the destination's owner looked.
    pub(super) fn moved(
        engine: &'static str,
        way: Way,
        pair: &PairVerdict,
        granted: String,
        delivery: Delivery,
    ) -> Self {
        let (permitted, granted, verified) = (permitted(pair, way), Stage::Yes(granted), Stage::seen(&delivery));
        Self { engine, way, permitted, granted, verified, delivery: Some(delivery), contradiction: None }
    }

    /// Holds the kernel's answer against the rules that it was asked by; `rules` is what Linux is known to decide.
    ///
    /// Only of engines for which the kernel asks its rules.
    pub(super) fn against(mut self, rules: Permission) -> Self {
        let words = match (rules, &self.granted) {
            (Permission::Permitted, Stage::No(_)) => "the kernel refuses what its rules, as known here, permit",
            (Permission::Refused, Stage::Yes(_)) => "the kernel grants what its rules, as known here, refuse",
            _ => return self,
        };
        self.contradiction = Some(format!("{words}; please report it with what peerdma capture writes"));
        self
    }

    pub(super) fn document(&self) -> ProbeRowDocument {
        ProbeRowDocument {
            engine: self.engine.to_string(),
            direction: self.way.word(),
            permitted: self.permitted.word(),
            granted: self.granted.document(),
            verified: self.verified.document(),
            delivery: self.delivery.as_ref().map(Into::into),
            contradiction: self.contradiction.clone(),
        }
    }
}

/// What the verdict says of a direction.
pub(super) fn permitted(pair: &PairVerdict, way: Way) -> Permission {
    pair.permits(match way {
        Way::Push => Need::Write,
        Way::Pull => Need::Read,
    })
}

/// An engine that is not here, and what it lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Absent {
    pub(super) engine: &'static str,
    pub(super) needs: Vec<String>,
}

impl Absent {
    pub(super) fn document(&self) -> AbsentEngineDocument {
        AbsentEngineDocument { engine: self.engine.to_string(), needs: self.needs.clone() }
    }
}

/// Everything that was found.
#[derive(Clone, Default, Debug)]
pub(super) struct Trial {
    pub(super) rows: Vec<Row>,
    pub(super) absent: Vec<Absent>,
    /// What went wrong besides.
    pub(super) failures: Vec<String>,
}

impl Trial {
    /// Adds a row of no engine for each direction that none was there for.
    pub(super) fn complete(&mut self, ways: &[Way], pair: &PairVerdict) {
        for &way in ways {
            if !self.rows.iter().any(|row| row.way == way) {
                let granted = Stage::Unknown("no engine is here that could ask".into());
                self.rows.push(Row::unmoved("none", way, pair, granted));
            }
        }
        // Direction by direction; of one, in the order of the engines.
        self.rows.sort_by_key(|row| row.way != Way::Push);
    }

    /// What it comes to: everything that failed, else the weightiest answer.
    pub(super) fn outcome(&self) -> Result<Exit, String> {
        let lost = self.rows.iter().filter(|row| matches!(row.verified, Stage::No(_)));
        let lost = lost.map(|row| format!("{} {}: {}", row.engine, row.way.word(), row.verified.evidence()));
        let wrong: Vec<String> = lost.chain(self.failures.iter().cloned()).collect();
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        // Of several engines for a direction one that can tell is enough, and none may be refused.
        let answers = self.rows.iter().flat_map(|row| {
            let told = |of: fn(&Row) -> &Stage| match of(row) {
                Stage::Unknown(_) if self.rows.iter().any(|other| other.way == row.way && is_yes(of(other))) => {
                    Permission::Permitted
                }
                stage => stage.permission(),
            };
            [row.permitted, told(|row| &row.granted), told(|row| &row.verified)]
        });
        Ok(Exit::judge(answers))
    }
}

const fn is_yes(stage: &Stage) -> bool {
    matches!(stage, Stage::Yes(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes() -> Stage {
        Stage::Yes("seen".into())
    }

    fn no() -> Stage {
        Stage::No("EINVAL".into())
    }

    fn unknown() -> Stage {
        Stage::Unknown("nobody asked".into())
    }

    fn row(way: Way, permitted: Permission, granted: Stage, verified: Stage) -> Row {
        Row { engine: "edu", way, permitted, granted, verified, delivery: None, contradiction: None }
    }

    fn outcome(rows: &[Row], failures: &[&str]) -> Result<Exit, String> {
        let failures = failures.iter().map(ToString::to_string).collect();
        Trial { rows: rows.to_vec(), absent: Vec::new(), failures }.outcome()
    }

    use Permission::{Permitted, Refused, Unknown};

    #[test]
    fn all_three_columns_of_both_directions_make_it_done() {
        let write = row(Way::Push, Permitted, yes(), yes());
        assert_eq!(outcome(&[write.clone(), row(Way::Pull, Permitted, yes(), yes())], &[]), Ok(Exit::Done));
        for (permitted, granted, verified) in
            [(Unknown, yes(), yes()), (Permitted, unknown(), yes()), (Permitted, yes(), unknown())]
        {
            let read = row(Way::Pull, permitted, granted, verified);
            assert_eq!(outcome(&[write.clone(), read], &[]), Ok(Exit::Unknown));
        }
    }

    #[test]
    fn bytes_that_are_lost_weigh_more_than_a_refusal_and_that_more_than_what_is_unknown() {
        let unknown_one = row(Way::Push, Unknown, unknown(), unknown());
        let refused = row(Way::Pull, Refused, unknown(), unknown());
        let refused_by_kernel = row(Way::Pull, Permitted, no(), unknown());
        assert_eq!(outcome(&[unknown_one.clone(), refused.clone()], &[]), Ok(Exit::Refused));
        assert_eq!(outcome(&[unknown_one, refused_by_kernel], &[]), Ok(Exit::Refused));
        let lost = row(Way::Push, Permitted, yes(), Stage::No("nothing arrived".into()));
        let wrong = outcome(&[lost, refused.clone()], &[]).unwrap_err();
        assert!(wrong.contains("edu write: nothing arrived"), "{wrong}");
        assert_eq!(outcome(&[refused], &["not put back"]), Err("not put back".into()));
    }

    /// Although refused by the rules a forced transfer may arrive; that permits nothing.
    #[test]
    fn what_arrives_by_force_stays_refused() {
        assert_eq!(outcome(&[row(Way::Push, Refused, yes(), yes())], &[]), Ok(Exit::Refused));
    }

    #[test]
    fn a_second_engine_that_cannot_tell_takes_nothing_away() {
        let rows = [row(Way::Push, Permitted, yes(), yes()), row(Way::Push, Permitted, unknown(), unknown())];
        assert_eq!(outcome(&rows, &[]), Ok(Exit::Done));
        let rows = [row(Way::Push, Permitted, yes(), yes()), row(Way::Push, Permitted, no(), unknown())];
        assert_eq!(outcome(&rows, &[]), Ok(Exit::Refused));
    }

    #[test]
    fn a_kernel_that_decides_otherwise_than_the_rules_is_told() {
        let against = |rules, granted| row(Way::Push, Permitted, granted, unknown()).against(rules).contradiction;
        assert!(against(Permitted, no()).is_some_and(|words| words.contains("refuses what its rules")));
        assert!(against(Refused, yes()).is_some_and(|words| words.contains("grants what its rules")));
        for (rules, granted) in
            [(Permitted, yes()), (Refused, no()), (Unknown, yes()), (Unknown, no()), (Refused, unknown())]
        {
            assert_eq!(against(rules, granted), None);
        }
    }
}
