//! What the words of a case do to the registers of the emulated machine.

use crate::data::{Case, Change, Data, Function, Tlp};

/// The registers that one TLP meets, ports before what is below them. `also` are changes of the
/// test's own: bits of the ACS control register, by name of the port.
pub(crate) fn functions(data: &Data, case: &Case, tlp: &Tlp, also: &[(&str, &str)]) -> Vec<Function> {
    let mut functions = data.functions(case, tlp, Function::change);
    if tlp.relaxed {
        // A completer repeats the attribute of the request, which a sender needs leave for.
        functions.iter_mut().find(|function| function.name == tlp.from).unwrap().device_control |= 1 << 4;
    }
    for (name, bit) in also {
        functions.iter_mut().find(|function| function.name == *name).unwrap().control(bit);
    }
    functions
}

impl Function {
    fn change(&mut self, change: &Change) {
        let Change { memory, bus_master, atomic_routing, atomic_egress_blocking, .. } = *change;
        change.acs.iter().for_each(|bit| self.control(bit));
        self.vector.extend(&change.vector);
        change.address.iter().for_each(|address| self.address.clone_from(address));
        self.buses = change.buses.or(self.buses);
        change.bars.iter().for_each(|bars| self.bars.clone_from(bars));
        self.memory = change.memory_window.or(self.memory);
        let put = |register: &mut u16, bit: u16, on: bool| *register = *register & !bit | if on { bit } else { 0 };
        memory.into_iter().for_each(|on| put(&mut self.command, 2, on));
        bus_master.into_iter().for_each(|on| put(&mut self.command, 4, on));
        atomic_egress_blocking.into_iter().for_each(|on| put(&mut self.device_control_2, 1 << 7, on));
        if let Some(on) = atomic_routing {
            self.device_capabilities_2 = self.device_capabilities_2 & !(1 << 6) | u32::from(on) << 6;
        }
        if let Some(payload) = change.max_payload {
            self.device_control = self.device_control & !(7 << 5) | (payload.trailing_zeros() as u16 - 7) << 5;
        }
    }

    /// Sets a bit of the ACS control register by its name. A function that the file gives no such
    /// registers has those that functions have (PCIe 6.0 §6.12.1.2): RR, CR, EC and DT.
    fn control(&mut self, name: &str) {
        let [capability, control] = self.acs.get_or_insert([0x006c, 0]);
        let field = |shift: u16, value: &str| value.parse::<u16>().unwrap() << shift;
        *control |= match name.split_once('=') {
            Some(("DSP-MT", value)) => field(8, value),
            Some(("USP-MT", value)) => field(10, value),
            Some(_) => panic!("no ACS field {name}"),
            None if name == "ENH" => {
                *capability |= 1 << 7;
                0
            }
            None if name == "URR" => 1 << 12,
            None => {
                let names = ["SV", "TB", "RR", "CR", "UF", "EC", "DT"];
                1 << names.iter().position(|other| *other == name).unwrap()
            }
        };
    }
}
