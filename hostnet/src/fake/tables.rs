//! nft tables of the fake kernel.

use super::refused;
use crate::facts::Facts;
use crate::kernel::KernelError;
use crate::nft::{Chain, Command, Rule, Set, Statement, Table, TableFacts, TableId, Transaction, Verdict};

/// Carries out a transaction on a copy of the facts that the caller throws away on failure.
pub(super) fn commit(facts: &mut Facts, transaction: &Transaction) -> Result<(), KernelError> {
    transaction.commands.iter().try_for_each(|command| carry_out(facts, command))
}

fn carry_out(facts: &mut Facts, command: &Command) -> Result<(), KernelError> {
    match command {
        Command::AddTable(table) | Command::ReplaceTable(table) => {
            if matches!(command, Command::ReplaceTable(_)) {
                facts.tables.retain(|other| other.id != table.id);
            }
            if facts.table(&table.id).is_some() {
                return Err(refused(libc::EEXIST));
            }
            if table.chains.iter().any(|chain| leads_nowhere(table, chain)) {
                return Err(refused(libc::ENOENT));
            }
            let mut new = expected(table, facts)?;
            number(&mut new, 0);
            facts.tables.push(new);
        }
        Command::DeleteTable(table) => facts.tables.retain(|other| other.id != *table),
        Command::AddSet { table, set } => {
            let new = sole(table, facts, |alone| alone.set(set.clone()))?;
            let place = find(facts, table)?;
            if place.sets.iter().any(|other| other.name == set.name) {
                return Err(refused(libc::EEXIST));
            }
            place.sets.extend(new.sets);
        }
        Command::DeleteSet { table, set } => {
            super::remove(&mut find(facts, table)?.sets, |other| other.name == *set, libc::ENOENT)?;
        }
        Command::AddChain { table, chain } => {
            let new = sole(table, facts, |alone| alone.chain(chain.clone()))?;
            let place = find(facts, table)?;
            if place.chains.iter().any(|other| other.name == chain.name) {
                return Err(refused(libc::EEXIST));
            }
            let highest = highest_handle(place);
            place.chains.extend(new.chains);
            number(place, highest);
        }
        Command::DeleteChain { table, chain } => {
            super::remove(&mut find(facts, table)?.chains, |other| other.name == *chain, libc::ENOENT)?;
        }
        Command::FlushChain { table, chain } => find_chain(facts, table, chain)?.rules.clear(),
        Command::AddRule { table, chain, rule } => add_rule(facts, table, chain, rule)?,
        Command::DeleteRule { table, chain, handle } => {
            super::remove(&mut find_chain(facts, table, chain)?.rules, |rule| rule.handle == *handle, libc::ENOENT)?;
        }
        Command::AddElements { table, set } => {
            let new = elements(facts, table, set)?;
            let held = find_set(facts, table, &set.name)?;
            held.extend(new);
            held.sort();
            held.dedup();
        }
        Command::DeleteElements { table, set } => {
            let gone = elements(facts, table, set)?;
            let held = find_set(facts, table, &set.name)?;
            if !gone.iter().all(|one| held.iter().any(|other| other.key == one.key)) {
                return Err(refused(libc::ENOENT));
            }
            held.retain(|one| !gone.iter().any(|other| other.key == one.key));
        }
        Command::FlushSet { table, set } => find_set(facts, table, set)?.clear(),
    }
    Ok(())
}

fn expected(table: &Table, facts: &Facts) -> Result<TableFacts, KernelError> {
    TableFacts::expected(table, facts).map_err(|error| KernelError::Invalid(error.to_string()))
}

/// What a table would list that holds one thing alone.
fn sole(id: &TableId, facts: &Facts, fill: impl FnOnce(Table) -> Table) -> Result<TableFacts, KernelError> {
    expected(&fill(Table::new(id.family, &id.name)), facts)
}

fn elements(facts: &Facts, table: &TableId, set: &Set) -> Result<Vec<crate::nft::ElementFacts>, KernelError> {
    let listed = sole(table, facts, |alone| alone.set(set.clone()))?;
    Ok(listed.sets.into_iter().flat_map(|set| set.elements).collect())
}

fn add_rule(facts: &mut Facts, table: &TableId, chain: &str, rule: &Rule) -> Result<(), KernelError> {
    let new = sole(table, facts, |alone| alone.chain(Chain::regular(chain).rule(rule.clone())))?;
    let highest = highest_handle(find(facts, table)?);
    find_chain(facts, table, chain)?.rules.extend(new.chains.into_iter().flat_map(|chain| chain.rules));
    number(find(facts, table)?, highest);
    Ok(())
}

fn find<'a>(facts: &'a mut Facts, id: &TableId) -> Result<&'a mut TableFacts, KernelError> {
    facts.tables.iter_mut().find(|table| table.id == *id).ok_or_else(|| refused(libc::ENOENT))
}

fn find_chain<'a>(
    facts: &'a mut Facts,
    id: &TableId,
    name: &str,
) -> Result<&'a mut crate::nft::ChainFacts, KernelError> {
    find(facts, id)?.chains.iter_mut().find(|chain| chain.name == name).ok_or_else(|| refused(libc::ENOENT))
}

fn find_set<'a>(
    facts: &'a mut Facts,
    id: &TableId,
    name: &str,
) -> Result<&'a mut Vec<crate::nft::ElementFacts>, KernelError> {
    let set = find(facts, id)?.sets.iter_mut().find(|set| set.name == name);
    set.map(|set| &mut set.elements).ok_or_else(|| refused(libc::ENOENT))
}

/// Whether a rule of the chain jumps to a chain that the table has not.
fn leads_nowhere(table: &Table, chain: &Chain) -> bool {
    chain.rules.iter().flat_map(|rule| &rule.statements).any(|statement| match statement {
        Statement::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => {
            !table.chains.iter().any(|other| other.name == *to)
        }
        _ => false,
    })
}

fn highest_handle(table: &TableFacts) -> u64 {
    table.chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.handle).max().unwrap_or(0)
}

/// Gives handles to the rules that have none yet.
fn number(table: &mut TableFacts, highest: u64) {
    let rules = table.chains.iter_mut().flat_map(|chain| &mut chain.rules).filter(|rule| rule.handle == 0);
    for (rule, handle) in rules.zip(highest + 1..) {
        rule.handle = handle;
    }
}
