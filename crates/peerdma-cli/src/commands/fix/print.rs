//! The answer as text.

use super::{Answer, words};
use crate::commands::route::{naming, write_reasons};
use crate::exit::Failure;
use crate::output;
use peerdma::route::fix::{self, BootParameters, Outcome, Parameter, PortChange};
use std::io::{self, Write};

impl Answer<'_> {
    pub(super) fn print(&self) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        let heading = output::heading();
        for pair in &self.plan.pairs {
            let topology = &self.loaded.topology;
            let (from, to) = (naming(topology, pair.now.initiator), naming(topology, pair.now.target.function()));
            writeln!(out, "{heading}{from} -> {to}{heading:#}")?;
            let [now, then] = [pair.now.verdict, pair.then.verdict]
                .map(|verdict| (output::style(verdict), verdict))
                .map(|(style, verdict)| format!("{style}{verdict}{style:#}"));
            match &self.plan.outcome {
                Outcome::Found(_) => writeln!(out, "  {now} now, {then} then, address {}", pair.then.address)?,
                _ => writeln!(out, "  {now} now, address {}", pair.now.address)?,
            }
        }
        match &self.plan.outcome {
            Outcome::NotNeeded => writeln!(out, "every pair is permitted as it is")?,
            Outcome::Found(ports) => self.print_ports(&mut out, ports)?,
            Outcome::Impossible { why } => {
                writeln!(out, "{heading}no ACS bits permit this{heading:#}")?;
                write_reasons(&mut out, "why", why)?;
            }
            Outcome::FactsMissing { reasons } => {
                writeln!(out, "{heading}it depends on what was not read{heading:#}")?;
                write_reasons(&mut out, "missing", reasons)?;
            }
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }

    fn print_ports(&self, out: &mut impl Write, ports: &[PortChange]) -> io::Result<()> {
        let heading = output::heading();
        let topology = &self.loaded.topology;
        let smallest = if self.plan.proven_smallest { ", no smaller set does" } else { "" };
        let noun = if ports.len() == 1 { "port" } else { "ports" };
        writeln!(out, "{heading}{} {noun} to change{heading:#}{smallest}", ports.len())?;
        for port in ports {
            let info = topology.function(port.function).info();
            let control = info.registers.acs.registers().and_then(|registers| registers.control.known());
            let now = control.map_or(String::new(), |control| format!(", control word now {:#06x}", control.bits()));
            writeln!(out, "  {}  {}{now}", info.address, bits(port))?;
            if let Some(path) = fix::selector(topology, port.function) {
                writeln!(out, "    path {path}")?;
            }
        }
        if let Some(parameters) = &self.parameters {
            self.print_parameters(out, parameters)?;
        }
        writeln!(out, "{heading}at once, by hand{heading:#}")?;
        for port in ports {
            writeln!(out, "  {}", fix::setpci(topology, port))?;
        }
        writeln!(
            out,
            "  lost at the next reset or boot; IOMMU groups formed at boot stay as they are (stale), and a driver that \
             asked Linux before keeps the answer until the target's driver is bound anew"
        )?;
        writeln!(out, "{heading}isolation, at the next boot{heading:#}")?;
        self.isolation.print(out, "  ")
    }

    fn print_parameters(&self, out: &mut impl Write, parameters: &BootParameters) -> io::Result<()> {
        let heading = output::heading();
        let preferred = parameters.preferred();
        writeln!(out, "{heading}at every boot{heading:#}")?;
        match preferred {
            Some(parameter) => {
                writeln!(out, "  kernel command line  {}", parameter.argument)?;
                self.print_leaves(out, parameter)?;
                writeln!(out, "  end of /etc/default/grub  {}", fix::grub_default_line(&parameter.argument))?;
                writeln!(
                    out,
                    "    then update-grub or grub-mkconfig; systemd-boot and /etc/kernel/cmdline take it unescaped"
                )?;
            }
            None => writeln!(out, "  no parameter does it for sure on this kernel; only setpci, after every boot")?,
        }
        if let Some(word) = self.passthrough {
            writeln!(
                out,
                "  besides  {word}, for drivers that hand out IOVAs where the domain translates (see the notes)"
            )?;
        }
        let others = [Some(&parameters.config_acs), parameters.disable_acs_redir.as_ref()];
        for other in others.into_iter().flatten().filter(|other| preferred != Some(other)) {
            let but = match (other.known_to_kernel, other.suffices) {
                (Some(false), _) => " (this kernel does not know it)",
                (_, false) => " (does not do it here)",
                _ => "",
            };
            writeln!(out, "  or  {}{but}", other.argument)?;
            self.print_leaves(out, other)?;
        }
        Ok(())
    }

    fn print_leaves(&self, out: &mut impl Write, parameter: &Parameter) -> io::Result<()> {
        for left in &parameter.leaves {
            let firmware = match left.open.is_empty() {
                true => String::new(),
                false => format!(", {} as firmware left them", words(left.open).join(" ")),
            };
            let set = if left.set.is_empty() { "nothing".to_string() } else { words(left.set).join(" ") };
            writeln!(out, "    leaves {} with {set} set{firmware}", self.address(left.function))?;
        }
        if let Some(old) = &parameter.replaces {
            writeln!(
                out,
                "    instead of {old} on the present line: the kernel keeps one list, so its devices were taken over"
            )?;
        }
        Ok(())
    }
}

fn bits(port: &PortChange) -> String {
    let part = |verb: &str, bits: Vec<String>| (!bits.is_empty()).then(|| format!("{verb} {}", bits.join(",")));
    let parts = [part("clear", words(port.clear())), part("set", words(port.set()))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
