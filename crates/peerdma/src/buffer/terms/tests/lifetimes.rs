//! The table of lifetimes, cell by cell, written a second time by what each promise means.

use super::super::*;

/// What a lifetime has to be, from the words alone.
fn by_the_words(stays: Stays, takes: Lifetime) -> Result<(Lifetime, bool), Rule> {
    let pinnable = stays.moves == Moves::UnlessPinned;
    let moves = stays.moves != Moves::Never;
    if stays.revoked && takes == Lifetime::Pinned {
        return Err(Rule::Revoked);
    }
    if moves && takes == Lifetime::Movable {
        return Ok((Lifetime::Movable, false));
    }
    if moves && !pinnable {
        return Err(Rule::Moved);
    }
    Ok((if stays.revoked { Lifetime::Revocable } else { Lifetime::Pinned }, moves))
}

#[test]
fn each_memory_stands_with_each_importer_in_one_row_that_says_what_the_words_mean() {
    for stays in Stays::ALL {
        for takes in Lifetime::ALL {
            let rows: Vec<_> = LIFETIMES.iter().filter(|row| row.stays == stays && row.takes == takes).collect();
            let [row] = rows[..] else { panic!("{} rows of {stays} and {takes}", rows.len()) };
            let answer = match row.answer {
                Answer::Gives(lifetime) => Ok((lifetime, false)),
                Answer::GivesWithPin(lifetime) => Ok((lifetime, true)),
                Answer::Refuses(rule) => Err(rule),
            };
            assert_eq!(answer, by_the_words(stays, takes), "{stays}, {takes}");
        }
    }
    assert_eq!(LIFETIMES.len(), Stays::ALL.len() * Lifetime::ALL.len());
}

#[test]
fn nobody_is_given_less_than_he_can_live_with() {
    for row in LIFETIMES {
        if let Answer::Gives(lifetime) | Answer::GivesWithPin(lifetime) = row.answer {
            assert!(lifetime <= row.takes, "{row:?}");
        }
    }
}

#[test]
fn who_takes_less_is_refused_less() {
    for stays in Stays::ALL {
        let refused = |takes| matches!(lifetime(stays, takes), Answer::Refuses(_));
        for pair in Lifetime::ALL.windows(2) {
            assert!(refused(pair[0]) || !refused(pair[1]), "{stays}");
        }
        assert!(!refused(Lifetime::Movable), "who follows moves takes whatever is offered");
    }
}

#[test]
fn a_pin_is_taken_only_where_memory_would_move_and_can_be_held() {
    for row in LIFETIMES {
        if let Answer::GivesWithPin(lifetime) = row.answer {
            assert!(row.stays.moves == Moves::UnlessPinned && lifetime != Lifetime::Movable, "{row:?}");
        }
    }
}
