//! What says that a machine has an NVIDIA GPU, whatever comes of opening it: the files of a Jetson, those of the kernel's
//! driver.
//!
//! Where there are some and CUDA does not open, this installation is amiss, and nobody would notice: the CPU gives the
//! same answers, only later. A machine that has none of them is in order without a GPU.

use std::fmt;
use std::path::{Path, PathBuf};

use super::readings::text;
use crate::compute::choice::NoGpu;

/// What a Jetson's system has, in a container not always.
const RELEASE: &str = "etc/nv_tegra_release";
/// The device tree's list of what the board is; it is masked in some containers.
const BOARD: &str = "proc/device-tree/compatible";
/// Every Jetson's begins so.
const TEGRA: &str = "nvidia,tegra";
/// What CUDA opens: on a machine with a card, and on a Jetson's GPU of its own.
const DEVICES: [&str; 7] = [
    "dev/nvidiactl",
    "dev/nvidia0",
    "dev/nvidia-uvm",
    "dev/nvmap",
    "dev/nvgpu/igpu0/ctrl",
    "dev/nvhost-ctrl-gpu",
    "dev/nvhost-gpu",
];

/// What was found of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    /// At least one.
    found: Vec<PathBuf>,
    /// Device files that this process may not read and write.
    closed: Vec<PathBuf>,
}

impl Signs {
    /// Looks below `root` (`/` on a real machine); `None` where nothing says that there is a GPU.
    pub fn look(root: &Path) -> Option<Signs> {
        let board = text(&root.join(BOARD)).is_some_and(|board| board.contains(TEGRA));
        let system = [(RELEASE, root.join(RELEASE).exists()), (BOARD, board)];
        let system = system
            .into_iter()
            .filter_map(|(path, there)| there.then_some(path));
        // A link that leads nowhere is there, and cannot be opened.
        let is_there = |path: &&str| root.join(path).symlink_metadata().is_ok();
        let devices: Vec<&str> = DEVICES.into_iter().filter(is_there).collect();
        let absolute = |path: &str| Path::new("/").join(path);
        let closed = devices.iter().filter(|path| !is_open(&root.join(path)));
        let signs = Signs {
            closed: closed.map(|path| absolute(path)).collect(),
            found: system
                .chain(devices.iter().copied())
                .map(absolute)
                .collect(),
        };
        (!signs.found.is_empty()).then_some(signs)
    }

    /// What to do where CUDA does not open all the same.
    pub fn remedy(&self, none: &NoGpu) -> String {
        // Without a driver's library nobody has tried to open them.
        if self.closed.is_empty() || !none.may_come {
            return none.remedy.to_owned();
        }
        format!(
            "let this user read and write {} (groups video and render; DeviceAllow in the unit, systemd/README.md; \
             NVIDIA's runtime for a container), or take the CPU",
            listed(&self.closed)
        )
    }
}

impl fmt::Display for Signs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(&self.found))
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

fn is_open(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::readings::tests::machine;
    use super::*;

    fn none(may_come: bool) -> NoGpu {
        NoGpu {
            why: "it was not found".to_owned(),
            remedy: "install it",
            may_come,
        }
    }

    #[test]
    fn a_jetson_and_a_card_are_told_by_their_files_and_nothing_else_is() {
        for (path, content) in [
            (RELEASE, "# R36 (release)\n"),
            (BOARD, "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0"),
            ("dev/nvidiactl", ""),
            ("dev/nvgpu/igpu0/ctrl", ""),
        ] {
            let signs = Signs::look(machine(&[(path, content)]).path()).unwrap();
            assert_eq!(signs.to_string(), format!("/{path}"));
            assert_eq!(signs.remedy(&none(true)), "install it");
        }
        // A Raspberry Pi, and a machine that says nothing of itself.
        let pi = machine(&[
            (BOARD, "raspberrypi,4-model-b\0brcm,bcm2711\0"),
            ("dev/null", ""),
        ]);
        assert_eq!(Signs::look(pi.path()), None);
        assert_eq!(Signs::look(machine(&[]).path()), None);
    }

    #[test]
    fn files_that_this_user_may_not_open_are_named() {
        let root = machine(&[(RELEASE, "# R36\n"), ("dev/nvhost-gpu", "")]);
        // Of a link that leads nowhere, root has no more than anybody else.
        std::os::unix::fs::symlink("nowhere", root.path().join("dev/nvmap")).unwrap();
        let signs = Signs::look(root.path()).unwrap();
        assert_eq!(
            signs.to_string(),
            "/etc/nv_tegra_release, /dev/nvmap, /dev/nvhost-gpu"
        );
        let remedy = signs.remedy(&none(true));
        assert!(
            remedy.contains("read and write /dev/nvmap (") && remedy.contains("video"),
            "{remedy}"
        );
        // It is of no use where the library is missing.
        assert_eq!(signs.remedy(&none(false)), "install it");
    }
}
