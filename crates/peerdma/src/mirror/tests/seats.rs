//! The queue, one step after the other; threads are in `models/tests/mirror.rs`.

use super::*;

fn ask(context: &mut Asking, page: u64) -> Ring {
    context.ask(wanted(page, Access::Write)).unwrap()
}

#[test]
fn a_context_asks_once_and_is_answered_once() {
    let queue = Queue::new(2);
    let mut context = queue.seat().unwrap();
    assert_eq!(ask(&mut context, 3), Ring::Awake);
    assert_eq!(context.ask(wanted(4, Access::Read)), Err(AskError));
    let mut taken = Vec::new();
    assert_eq!(queue.serve(|token, wanted| taken.push((token, wanted))), 1);
    assert_eq!(queue.serve(|_, _| unreachable!("it was handed out")), 0);
    let [(token, asked)] = taken[..] else { unreachable!("one was handed out") };
    assert_eq!((asked, context.answer()), (wanted(3, Access::Write), None));
    assert!(queue.respond(token, Answer::Invalid));
    assert!(!queue.respond(token, Answer::Success), "it has been answered");
    assert_eq!((context.answer(), context.answer()), (Some(Answer::Invalid), None));
}

#[test]
fn an_answer_to_whoever_sat_there_before_is_lost() {
    let queue = Queue::new(1);
    let mut context = queue.seat().unwrap();
    assert!(queue.seat().is_none());
    let _ = ask(&mut context, 1);
    let mut token = None;
    queue.serve(|asked, _| token = Some(asked));
    drop(context);
    let mut next = queue.seat().unwrap();
    let _ = ask(&mut next, 2);
    assert!(!queue.respond(token.unwrap(), Answer::Success));
    assert_eq!(queue.serve(|token, _| assert!(queue.respond(token, Answer::Failure))), 1);
    assert_eq!(next.answer(), Some(Answer::Failure));
    // Asked and gone before anybody looked.
    let _ = ask(&mut next, 3);
    drop(next);
    assert_eq!(queue.serve(|_, _| unreachable!("nobody waits")), 0);
}

#[test]
fn of_those_who_ask_a_sleeping_server_one_wakes_it() {
    let queue = Queue::new(64);
    let mut contexts: Vec<_> = (0..64).map(|_| queue.seat().unwrap()).collect();
    assert!(queue.seat().is_none());
    assert!(queue.fall_asleep());
    let rings: Vec<_> = contexts.iter_mut().map(|context| ask(context, 1)).collect();
    assert_eq!(rings.iter().filter(|ring| **ring == Ring::Wake).count(), 1);
    assert!(!queue.fall_asleep(), "there is something to serve");
    assert_eq!(queue.serve(|_, _| {}), 64);
    assert!(queue.fall_asleep());
    queue.awake();
    drop(contexts.pop());
    assert_eq!(ask(&mut queue.seat().unwrap(), 1), Ring::Awake);
}
