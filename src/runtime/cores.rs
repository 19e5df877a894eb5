//! How many processors the process may use: what a runtime's number of workers defaults to.
//!
//! Go's rule: the least of the processors that the affinity mask allows and what the cgroups' quotas allow, where a quota is rounded up, so that
//! all of it can be used, and counts for two at least, so that one goroutine that computes does not hold all others. std's
//! `available_parallelism` rounds down and to one, hence this module. The number is taken once: a runtime's workers never change.

use std::thread;

/// The processors that the process may use; at least one.
pub(crate) fn available() -> usize {
    #[cfg(target_os = "linux")]
    if let Some(allowed) = linux::allowed() {
        return linux::quota("/".as_ref()).map_or(allowed, |quota| within(quota, allowed));
    }
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// `allowed` processors under a quota of so many processors' time.
#[cfg(target_os = "linux")]
fn within(quota: f64, allowed: usize) -> usize {
    allowed.min((quota.ceil() as usize).max(2))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, path::Path};

    use rustix::thread::sched_getaffinity;

    /// The processors in the calling thread's affinity mask.
    pub(super) fn allowed() -> Option<usize> {
        let mask = sched_getaffinity(None).ok()?;
        Some(mask.count() as usize).filter(|n| *n > 0)
    }

    /// The processors' worth of time that the process's cgroup and those above it leave; none when there is no limit. The files are
    /// looked for below `root`.
    pub(super) fn quota(root: &Path) -> Option<f64> {
        let own = |path: &str| fs::read_to_string(root.join("proc/self").join(path)).ok();
        let (groups, mounts) = (own("cgroup")?, own("mountinfo")?);
        groups
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, group) = (parts.next()?, parts.next()?);
                // Version two has one tree without names of controllers.
                if !controllers.is_empty() && !controllers.split(',').any(|name| name == "cpu") {
                    return None;
                }
                mounts.lines().find_map(|mount| least(root, mount, controllers.is_empty(), group))
            })
            .reduce(f64::min)
    }

    /// The least quota from `group` up to the root of its tree, if `mount` is where that tree is.
    fn least(root: &Path, mount: &str, unified: bool, group: &str) -> Option<f64> {
        // "36 35 98:0 /root /where options optional... - type source options"
        let (mount, kind) = mount.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let right = match kind.next()? {
            "cgroup2" => unified,
            "cgroup" => !unified && kind.next_back()?.split(',').any(|option| option == "cpu"),
            _ => false,
        };
        if !right {
            return None;
        }
        let mut mount = mount.split(' ').skip(3);
        let (tree, place) = (mount.next()?, mount.next()?);
        // In a container the tree that is mounted may begin at the group itself.
        let group = group.strip_prefix(tree).unwrap_or(group);
        let place = root.join(place.trim_start_matches('/'));
        let mut folder = place.join(group.trim_start_matches('/'));
        let mut found = None;
        loop {
            let quota = if unified { of_version_two(&folder) } else { of_version_one(&folder) };
            found = [found, quota].into_iter().flatten().reduce(f64::min);
            if folder == place || !folder.pop() {
                return found;
            }
        }
    }

    fn of_version_two(folder: &Path) -> Option<f64> {
        let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        share(quota, period)
    }

    fn of_version_one(folder: &Path) -> Option<f64> {
        let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
        let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
        share(&quota, &period)
    }

    /// None when there is no limit: the word "max", or -1.
    fn share(quota: &str, period: &str) -> Option<f64> {
        let (quota, period) = (quota.trim().parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?);
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        env, fs,
        path::{Path, PathBuf},
        process, thread,
    };

    use super::{available, linux, within};

    /// A folder that stands for `/`, with the files given, and is gone with this.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = Self(env::temp_dir().join(format!("oxigo-cores-{}-{name}", process::id())));
            for (path, text) in files {
                let path = root.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            root
        }

        fn quota(&self) -> Option<f64> {
            linux::quota(Path::new(&self.0))
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const TWO: (&str, &str) = (
        "proc/self/mountinfo",
        "24 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\n",
    );

    #[test]
    fn rt_08_the_quota_of_version_two() {
        for (text, quota, workers) in [
            ("300000 100000\n", Some(3.0), 3),
            ("100000 100000\n", Some(1.0), 2),
            ("50000 100000\n", Some(0.5), 2),
            ("250000 100000\n", Some(2.5), 3),
            ("9900000 100000\n", Some(99.0), 8),
            ("max 100000\n", None, 8),
            ("", None, 8),
        ] {
            let root = Root::new("two", &[("proc/self/cgroup", "0::/job\n"), TWO, ("sys/fs/cgroup/job/cpu.max", text)]);
            assert_eq!(root.quota(), quota, "{text:?}");
            assert_eq!(quota.map_or(8, |quota| within(quota, 8)), workers, "{text:?}");
        }
        assert_eq!(within(4.0, 1), 1, "no more than the mask allows");
    }

    #[test]
    fn rt_08_the_least_quota_on_the_way_to_the_root_counts() {
        for (slice, job, least) in [("400000", "600000", 4.0), ("700000", "600000", 6.0), ("400000", "max", 4.0)] {
            let (slice, job) = (format!("{slice} 100000\n"), format!("{job} 100000\n"));
            let root = Root::new(
                "above",
                &[
                    ("proc/self/cgroup", "0::/slice/job/inner\n"),
                    TWO,
                    ("sys/fs/cgroup/slice/cpu.max", &slice),
                    ("sys/fs/cgroup/slice/job/cpu.max", &job),
                    ("sys/fs/cgroup/slice/job/inner/cpu.max", "max 100000\n"),
                ],
            );
            assert_eq!(root.quota(), Some(least), "{slice}{job}");
        }
    }

    /// Both versions may be mounted, and only one of them limit the processors, or both.
    #[test]
    fn rt_08_the_least_quota_of_both_versions_counts() {
        let mounts = format!("{}31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", TWO.1);
        for (one, two, least) in [("300000", "500000", 3.0), ("500000", "300000", 3.0), ("-1", "300000", 3.0)] {
            let two = format!("{two} 100000\n");
            let root = Root::new(
                "both",
                &[
                    ("proc/self/cgroup", "3:cpu:/job\n0::/job\n"),
                    ("proc/self/mountinfo", &mounts),
                    ("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", one),
                    ("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n"),
                    ("sys/fs/cgroup/job/cpu.max", &two),
                ],
            );
            assert_eq!(root.quota(), Some(least), "{one} {two}");
        }
    }

    #[test]
    fn rt_08_the_quota_of_version_one() {
        let mounts = "30 23 0:26 /docker/7 /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            31 23 0:27 /docker/7 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for (limit, quota) in [("500000\n", Some(5.0)), ("-1\n", None)] {
            let root = Root::new(
                "one",
                &[
                    ("proc/self/cgroup", "5:memory:/docker/7\n4:cpu,cpuacct:/docker/7\n"),
                    ("proc/self/mountinfo", mounts),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", limit),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ],
            );
            assert_eq!(root.quota(), quota);
        }
    }

    #[test]
    fn rt_08_without_cgroups_there_is_no_quota() {
        assert_eq!(Root::new("none", &[]).quota(), None);
        assert_eq!(Root::new("empty", &[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", "")]).quota(), None);
    }

    #[test]
    fn rt_08_the_affinity_mask_counts() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let all = available();
        // The mask is the thread's own.
        let pinned = thread::spawn(|| {
            let mask = sched_getaffinity(None).unwrap();
            let first = (0..CpuSet::MAX_CPU).find(|cpu| mask.is_set(*cpu)).unwrap();
            let mut one = CpuSet::new();
            one.set(first);
            sched_setaffinity(None, &one).unwrap();
            available()
        });
        assert_eq!(pinned.join().unwrap(), 1);
        assert_eq!(available(), all);
    }
}
