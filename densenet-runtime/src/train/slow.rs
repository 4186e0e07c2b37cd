//! Warns if the CPU code was compiled without optimisation.
//!
//! Cargo takes profiles only from the workspace that is built, so ours do not apply in a user's.

use std::sync::Once;

use densenet_cpu::OPT_LEVEL;

use crate::tell;

/// Warns on standard error, once in a process.
pub(super) fn warn() {
    static ONCE: Once = Once::new();
    if let Some(warning) = warning(OPT_LEVEL) {
        ONCE.call_once(|| tell!("{warning}"));
    }
}

fn warning(opt_level: &str) -> Option<String> {
    (opt_level == "0").then(|| {
        "warning: densenet-cpu was compiled without optimisation and trains many times slower. \
         Build with `--release`, or add to the Cargo.toml of your workspace:\n\n    \
         [profile.dev.package.\"*\"]\n    opt-level = 3\n"
            .to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::{OPT_LEVEL, warning};

    #[test]
    fn a_build_without_optimisation_is_told_which_lines_to_add() {
        let warning = warning("0").unwrap();
        assert!(
            warning.contains("[profile.dev.package.\"*\"]\n    opt-level = 3\n"),
            "{warning}"
        );
    }

    #[test]
    fn an_optimised_build_is_told_nothing() {
        for level in ["1", "2", "3", "s", "z"] {
            assert_eq!(warning(level), None);
        }
    }

    #[test]
    fn the_build_script_says_how_this_workspace_builds_the_crate() {
        assert_eq!(OPT_LEVEL, "3");
    }
}
