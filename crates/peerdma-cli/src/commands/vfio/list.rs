//! `peerdma vfio list`.

use crate::args::VfioListArguments;
use crate::document::vfio::VfioListDocument;
use crate::exit::{Exit, Failure};
use crate::output::{self, columns, printable};
use crate::{input, output::notes};
use peerdma_linux::type1::settings::Settings;
use peerdma_linux::vfio::standing::Standing;

pub(super) fn run(arguments: &VfioListArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<VfioListDocument>()?;
        return Ok(Exit::Done);
    }
    let tree = input::tree(arguments.from.as_deref(), arguments.sysfs_root.as_deref())?;
    let mut standings = Standing::read_all(&tree);
    standings.retain(|standing| arguments.all || !standing.is_bridge());
    if arguments.output.json {
        output::json(&VfioListDocument::new(&standings, Settings::read(&tree)))?;
        return Ok(Exit::Done);
    }
    print(&standings, Settings::read(&tree))?;
    Ok(Exit::Done)
}

fn print(standings: &[Standing], settings: Settings) -> Result<(), Failure> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let rows: Vec<Vec<String>> = standings
        .iter()
        .map(|standing| {
            let place = &standing.place;
            let neighbours: Vec<String> =
                standing.neighbours.iter().map(|other| printable(&other.to_string())).collect();
            let resets = standing.reset_methods.as_ref().map_or("?".into(), |methods| methods.join(" "));
            vec![
                place.device.to_string(),
                or_dash(standing.id.map(|id| id.to_string())),
                or_dash(place.driver.as_deref().map(printable)),
                or_dash(place.group.as_ref().map(|group| group.number.to_string())),
                or_dash((!neighbours.is_empty()).then(|| neighbours.join(", "))),
                or_dash((!resets.is_empty()).then(|| printable(&resets))),
                word(standing),
            ]
        })
        .collect();
    let mut out = anstream::stdout().lock();
    columns(&mut out, &["FUNCTION", "ID", "DRIVER", "GROUP", "BESIDE IT", "RESET", "FOR VFIO"], &rows)?;
    let mut unseen: Vec<&str> = standings.iter().flat_map(|standing| standing.unseen.iter().copied()).collect();
    unseen.sort_unstable();
    unseen.dedup();
    let unseen = unseen.iter().map(|what| format!("not seen from here: {what}"));
    notes(&slow(settings).into_iter().chain(unseen).collect::<Vec<_>>())
}

/// What of type1's settings costs every mapping something.
fn slow(settings: Settings) -> Option<String> {
    let off = settings.huge_pages == Some(false);
    off.then(|| {
        "type1 maps page by page (disable_hugepages=Y), which makes large mappings slow; as root: \
         echo N > /sys/module/vfio_iommu_type1/parameters/disable_hugepages"
            .to_string()
    })
}

/// What stands in the way, in a few words.
fn word(standing: &Standing) -> String {
    let place = &standing.place;
    if let Some(user) = standing.uses.first() {
        return format!("in use: {}", printable(&user.to_string()));
    }
    match (&place.group, &place.driver) {
        _ if standing.is_bridge() => "a bridge".into(),
        (None, _) => "no IOMMU group".into(),
        (Some(group), _) if group.noiommu => "no IOMMU behind its group".into(),
        (Some(group), _) if place.is_vfio && !group.in_the_way.is_empty() => {
            let others: Vec<String> = group.in_the_way.iter().map(|other| printable(&other.to_string())).collect();
            format!("its group is held by {}", others.join(", "))
        }
        (Some(_), _) if place.is_vfio => "ready".into(),
        (Some(_), Some(_)) => "bind it with --force".into(),
        (Some(_), None) => "free; bind it".into(),
    }
}
