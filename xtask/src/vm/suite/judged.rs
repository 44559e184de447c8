//! The kernel as judge: every pair of the guests that [`pairs`] plans.

use super::setup::{Laboratory, Setup, Which};
use super::{Asked, Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Job;
use crate::vm::pairs::{self, GuestPlan, STOCK_PLANS, StockPlan};

pub(super) fn tests(asked: &Asked) -> Vec<Test> {
    let seeds = asked.seed..asked.seed.saturating_add(u64::from(asked.random));
    let fixtures = asked.write_fixtures;
    let mut tests: Vec<Test> = Vec::new();
    for plan in pairs::plan() {
        tests.push(Test::new("pairs", plan.name.clone(), move |laboratory| prepared(laboratory, &plan, fixtures)));
    }
    for plan in seeds.map(pairs::random_plan) {
        // Random guests come and go, so none of them is kept as a fixture.
        tests.push(Test::new("pairs", plan.name.clone(), move |laboratory| prepared(laboratory, &plan, false)));
    }
    for plan in STOCK_PLANS {
        tests.push(Test::new("pairs", plan.name, move |laboratory| stock(laboratory, &plan)));
    }
    tests
}

/// A guest of the small kernel, which answers for every pair.
fn prepared(laboratory: &Laboratory, plan: &GuestPlan, write_fixtures: bool) -> Result<Done, Failure> {
    let setup = Setup::planned(Which::Small, plan.cpu, plan.iommu, plan.model()?, plan.cmdline);
    let outcome = laboratory.boot_job(&setup, &mut Job::new(plan.argv()))?;
    let row = pairs::check(plan, &outcome, &laboratory.peerdma, &laboratory.scratch()?)?;
    row.judge(plan)?;
    say!("vm: {}: {}", row.name, row.words());
    if write_fixtures {
        pairs::write_fixtures(&laboratory.root, plan, &outcome)?;
    }
    Ok(Done { pairs: row.compared + row.with_bridges, claims: row.claimed_by_user })
}

/// A guest of the stock kernel, asked by real transfers between drives.
fn stock(laboratory: &Laboratory, plan: &StockPlan) -> Result<Done, Failure> {
    let setup = Setup::planned(Which::Stock, plan.cpu, plan.iommu, plan.model()?, plan.cmdline);
    let mut job = Job::new(["sh", "-c", StockPlan::SCRIPT].map(Into::into).into());
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    let shown = pairs::check_nvme(plan, &outcome, &laboratory.peerdma, &laboratory.scratch()?)?;
    if !shown.mismatches.is_empty() {
        return Err(Failure::Found(format!("answers differ from the kernel's:\n  {}", shown.mismatches.join("\n  "))));
    }
    Ok(Done { pairs: shown.pairs, claims: 0 })
}
