//! The small kernel: iommufd and the test module, built from Debian's source package.
//!
//! Eight minutes on two cores, so it is made once for each source and configuration,
//! with what the test module is built from kept beside it, since that changes more often.
//! `nice` leaves the machine to whoever builds in front of it.

use super::apt;
use super::cache;
use super::kernel::Kernel;
use super::process::{bound, logged, output};
use super::stock::{self, Offer};
use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the kernel needs beyond tinyconfig.
const FRAGMENT: &str = include_str!("../../../vm/kernel.config");

/// The test module calls a static function by its address, so that function must keep its
/// name and its C calling convention: no clones for constant or unused arguments.
const CALLABLE: &str = "-fno-ipa-sra -fno-ipa-cp -fno-partial-inlining -fno-inline-functions-called-once";

/// Where a build leaves the bootable image, below the folder with `source` and `build`.
const IMAGE: &str = "build/arch/x86/boot/bzImage";

/// The kernel, built if it is not there yet; `Ok(Err(reasons))` if no source that is new enough is offered.
pub(super) fn kernel(root: &Path, top: &Path) -> Result<Result<Kernel, Vec<String>>, Failure> {
    let tree = match tree(top)? {
        Ok(tree) => tree,
        Err(reasons) => return Ok(Err(reasons)),
    };
    let oracle = oracle(root, top, &tree)?;
    let release = fs::read_to_string(tree.join("build/include/config/kernel.release"))
        .map_err(|error| Failure::io("read", &tree, &error))?;
    Ok(Ok(Kernel { release: release.trim().into(), image: tree.join(IMAGE), modules: None, oracle: Some(oracle) }))
}

/// The folder with `source` and `build`, remembered until `target/vm` is removed.
fn tree(top: &Path) -> Result<Result<PathBuf, Vec<String>>, Failure> {
    let config = cache::digest(&[FRAGMENT.as_bytes(), CALLABLE.as_bytes()]);
    if let Some(folder) = cache::remembered(top, "small")
        && folder.to_string_lossy().ends_with(&config)
    {
        return whole(folder).map(Ok);
    }
    let (suite, release) = match stock::offer(top)? {
        Offer::Found { suite, release, .. } => (suite, release),
        Offer::None(reasons) => return Ok(Err(reasons)),
    };
    let package = stock::source_package(&suite, &release)?;
    apt::need(top, apt::KERNEL_NEEDS)?;
    let name = format!("small-{}-{config}", cache::digest(&[package.sha256.as_bytes()]));
    let folder = cache::folder(top, &name, |at| {
        say!("vm: fetching {} {} of {}", package.name, package.version, suite.name);
        stock::need_space(at, 5 << 30)?;
        for file in suite.download(&[&package], at)? {
            stock::extract(&file, at)?;
            fs::remove_file(&file).map_err(|error| Failure::io("remove", &file, &error))?;
        }
        unpack_source(at, &package.name)?;
        build(at)?;
        remove_built(&at.join("source"))
    })?;
    cache::remember(top, "small", &folder)?;
    whole(folder).map(Ok)
}

/// The folder, unless somebody emptied it.
fn whole(folder: PathBuf) -> Result<PathBuf, Failure> {
    if folder.join(IMAGE).is_file() {
        return Ok(folder);
    }
    Err(Failure::Stopped(format!("{} holds no kernel any more; remove it and try again", folder.display())))
}

fn unpack_source(at: &Path, name: &str) -> Result<(), Failure> {
    let archive = at.join("usr/src").join(format!("{name}.tar.xz"));
    let source = at.join("source");
    fs::create_dir(&source).map_err(|error| Failure::io("create", &source, &error))?;
    let mut tar = bound("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&source).arg("--strip-components=1");
    output(tar, "unpack the kernel's source")?;
    fs::remove_dir_all(at.join("usr")).map_err(|error| Failure::io("remove", at, &error))
}

fn build(at: &Path) -> Result<(), Failure> {
    let log = at.join("log");
    let folder = at.join("build");
    fs::create_dir(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    logged(make(at, &["tinyconfig"]), &log, "configure the kernel")?;
    let config = folder.join(".config");
    let tiny = fs::read_to_string(&config).map_err(|error| Failure::io("read", &config, &error))?;
    fs::write(&config, merged(&tiny, FRAGMENT)).map_err(|error| Failure::io("write", &config, &error))?;
    logged(make(at, &["olddefconfig"]), &log, "configure the kernel")?;
    let result = fs::read_to_string(&config).map_err(|error| Failure::io("read", &config, &error))?;
    let dropped = dropped(&result, FRAGMENT);
    if !dropped.is_empty() {
        return Err(Failure::Stopped(format!(
            "this kernel's source does not take {}; see what they depend on there and mend vm/kernel.config",
            dropped.join(", ")
        )));
    }
    say!("vm: building the small kernel, some eight minutes on two cores");
    let jobs = format!("-j{}", std::thread::available_parallelism().map_or(2, usize::from));
    let callable = format!("CFLAGS_p2pdma.o={CALLABLE}");
    progress(&log, || logged(make(at, &[&jobs, &callable, "bzImage", "modules_prepare"]), &log, "build the kernel"))?;
    // What `make modules` would write from it, after looking for modules that this kernel has none of.
    let (symbols, copy) = (folder.join("vmlinux.symvers"), folder.join("Module.symvers"));
    fs::copy(&symbols, copy).map_err(|error| Failure::io("copy", &symbols, &error))?;
    Ok(())
}

/// Folders of the source that went into the kernel and that no module is built from.
const BUILT: [&str; 6] = ["Documentation", "drivers", "fs", "net", "samples", "sound"];

/// Removes what only the kernel itself needed, nine tenths of the source: 1.7 of 1.8 GiB.
///
/// What is left is what Debian's packages of headers hold: makefiles, headers, scripts and objtool.
fn remove_built(source: &Path) -> Result<(), Failure> {
    for name in BUILT {
        remove(&source.join(name))?;
    }
    keep_only(&source.join("arch"), &["x86"])?;
    keep_only(&source.join("tools"), &["arch", "build", "include", "lib", "objtool", "scripts"])
}

/// Removes all folders of a folder but those named.
fn keep_only(folder: &Path, kept: &[&str]) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::io("read", folder, &error))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && !kept.iter().any(|kept| entry.file_name() == **kept) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes a folder, which another series of kernels may not have.
fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove", folder, &error)),
        _ => Ok(()),
    }
}

/// `make` in the source, with the output beside it.
fn make(tree: &Path, arguments: &[&str]) -> Command {
    let mut command = bound("nice");
    command.args(["make", "-C"]).arg(tree.join("source")).arg(format!("O={}", tree.join("build").display()));
    // Cargo hands its own jobs' pipe down, which make would take for its own and complain.
    command.args(arguments).env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
    command
}

/// The configuration with the fragment's lines in place of its own.
fn merged(tiny: &str, fragment: &str) -> String {
    let names: Vec<&str> = options(fragment).filter_map(|line| line.split('=').next()).collect();
    let named = |line: &str| {
        let name = line.strip_prefix("# ").unwrap_or(line).split(['=', ' ']).next().unwrap_or_default();
        names.contains(&name)
    };
    let kept = tiny.lines().filter(|line| !named(line));
    kept.chain(options(fragment)).map(|line| format!("{line}\n")).collect()
}

/// Lines of the fragment that are not in the configuration that came out.
fn dropped<'f>(result: &str, fragment: &'f str) -> Vec<&'f str> {
    options(fragment).filter(|option| !result.lines().any(|line| line == *option)).collect()
}

fn options(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().filter(|line| line.starts_with("CONFIG_"))
}

/// Says every half minute how far a build is, while `work` runs.
fn progress(log: &Path, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let started = Instant::now();
            let mut said = 0;
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                let periods = started.elapsed().as_secs() / 30;
                if periods > said {
                    said = periods;
                    let objects = fs::read_to_string(log).unwrap_or_default().lines().count();
                    say!("vm: {} steps after {:.1} minutes", objects, started.elapsed().as_secs_f64() / 60.0);
                }
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// The test module for this kernel.
fn oracle(root: &Path, top: &Path, tree: &Path) -> Result<PathBuf, Failure> {
    let sources = root.join("vm/oracle");
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(&sources).map_err(|error| Failure::io("read", &sources, &error))?.flatten() {
        let path = entry.path();
        if path.is_file() {
            let bytes = fs::read(&path).map_err(|error| Failure::io("read", &path, &error))?;
            parts.push((entry.file_name().to_string_lossy().into_owned(), bytes));
        }
    }
    parts.sort_unstable();
    let tree_name = tree.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digested: Vec<&[u8]> = std::iter::once(tree_name.as_bytes())
        .chain(parts.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes.as_slice()]))
        .collect();
    let name = format!("oracle-{}", cache::digest(&digested));
    let folder = cache::folder(top, &name, |at| {
        for (name, bytes) in &parts {
            let path = at.join(name);
            fs::write(&path, bytes).map_err(|error| Failure::io("write", &path, &error))?;
        }
        let module = format!("M={}", at.display());
        logged(make(tree, &[&module, "modules"]), &at.join("log"), "build the test module")
    })?;
    cache::remember(top, "oracle", &folder)?;
    Ok(folder.join("p2p_oracle.ko"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragment_wins_over_what_tinyconfig_says() {
        let tiny = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_BB=m\n";
        let result = merged(tiny, "# why\nCONFIG_B=y\nCONFIG_A=m\n");
        assert_eq!(result, "CONFIG_BB=m\nCONFIG_B=y\nCONFIG_A=m\n");
    }

    #[test]
    fn an_option_that_the_source_drops_is_named() {
        assert_eq!(dropped("CONFIG_A=y\n", "CONFIG_A=y\nCONFIG_B=y\n"), ["CONFIG_B=y"]);
        assert!(dropped("CONFIG_A=y\nCONFIG_B=y\n", "CONFIG_A=y\n").is_empty());
    }

    #[test]
    fn of_the_source_what_modules_are_built_from_is_kept() {
        let source = std::env::temp_dir().join(format!("peerdma-source-{}", std::process::id()));
        let kept = ["arch/x86/include", "include/linux", "scripts/mod", "tools/objtool"];
        for folder in kept.iter().chain(&["arch/arm64/boot", "drivers/gpu", "fs/ext4", "tools/perf"]) {
            fs::create_dir_all(source.join(folder)).unwrap();
        }
        fs::write(source.join("arch/Kconfig"), "").unwrap();
        remove_built(&source).unwrap();
        assert!(kept.iter().all(|folder| source.join(folder).is_dir()) && source.join("arch/Kconfig").is_file());
        for gone in ["arch/arm64", "drivers", "fs", "tools/perf"] {
            assert!(!source.join(gone).exists(), "{gone}");
        }
        fs::remove_dir_all(&source).unwrap();
    }

    #[test]
    fn the_fragment_names_each_option_once() {
        let mut options: Vec<&str> = options(FRAGMENT).collect();
        options.sort_unstable();
        let all = options.len();
        options.dedup();
        assert_eq!(options.len(), all);
    }
}
