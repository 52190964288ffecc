//! How many threads to compute with, unless told: a core each.
//!
//! Two threads of one core share its vector units and its path to memory, which is all that inference asks for, and each
//! waits for the other at every barrier. So hardware threads of one core count once; and of the cores only those count
//! that this process may run on, and no more than a control group's quota pays for.

use std::collections::HashSet;
use std::fs;
use std::thread;

/// Threads for this machine as this process sees it: one a core it may run on, within its quota.
pub fn default_count() -> usize {
    // The standard library heeds affinity and quota, but counts hardware threads.
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let siblings = |cpu: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        fs::read_to_string(path).ok()
    };
    match cores(&allowed_cpus(&status), &siblings) {
        Some(cores) => allowed.min(cores),
        None => allowed,
    }
}

/// The processors that a `/proc/self/status` allows, as `Cpus_allowed_list` writes them: `0-3,8,10-11`.
fn allowed_cpus(status: &str) -> Vec<usize> {
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse::<usize>().ok()?)
    };
    let ranges = list.unwrap_or("").trim().split(',').filter_map(range);
    ranges.flatten().collect()
}

/// Cores of some processors: those whose lists of siblings are the same are threads of one. `None` where there are no
/// processors or one does not say.
fn cores(cpus: &[usize], siblings: &dyn Fn(usize) -> Option<String>) -> Option<usize> {
    let lists: Option<HashSet<String>> = cpus.iter().map(|&cpu| siblings(cpu)).collect();
    lists.map(|lists| lists.len()).filter(|&count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_core_count_once() {
        let status = "Name:\tx\nCpus_allowed_list:\t0-3,8,10-11\nMems_allowed_list:\t0\n";
        assert_eq!(allowed_cpus(status), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(allowed_cpus("Cpus_allowed_list:\t5\n"), [5]);
        assert!(allowed_cpus("").is_empty());

        // Cores {0, 8}, {1, 9}, …: a machine of eight cores and sixteen threads.
        let pairs = |cpu: usize| Some(format!("{},{}\n", cpu % 8, cpu % 8 + 8));
        assert_eq!(cores(&[0, 1, 2, 3, 8, 10, 11], &pairs), Some(4));
        assert_eq!(cores(&[5], &pairs), Some(1));
        let single = |cpu: usize| Some(format!("{cpu}\n"));
        assert_eq!(cores(&[0, 1], &single), Some(2));
        assert_eq!(cores(&[0, 1], &|_| None), None);
        assert_eq!(cores(&[], &single), None);
    }

    #[test]
    fn there_is_at_least_one_and_no_more_than_may_run() {
        let most = thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=most).contains(&default_count()));
    }
}
