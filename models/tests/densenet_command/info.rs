//! `densenet info`.

use std::path::Path;

use densenet_runtime::cuda::{self, Cache, CudaDevice};
use densenet_runtime::plan::Precision;
use densenet_runtime::weights::State;
use densenet_runtime::{Network as _, Outputs};
use densenet_spec::{ParsedSpec, in_words};

use crate::{EMULATED, refusal, said};

/// The rows of one of the tables of memory.
fn rows<'a>(shown: &'a str, of: &str) -> Vec<&'a str> {
    let heading = format!("memory, {of} ");
    let from = shown.lines().skip_while(|line| !line.starts_with(&heading));
    from.skip(1).take_while(|line| !line.is_empty()).collect()
}

#[test]
fn info_shows_a_preset_as_the_paper_does() {
    let here = Path::new(".");
    let shown = said(here, &["info", "densenet121"]);
    assert!(shown.starts_with(
        "DenseNet121\nblocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck\n\n121 layers, 7,978,856 parameters, 2.834 GMACs for an image of 3x224x224\n"
    ), "{shown}");
    assert!(shown.contains(
        "| block 3       |     14x14 |  1024 | 24 x [1x1 conv to 128, 3x3 conv to 32]       |"
    ));
    // Plan::training_footprint says the same (models/tests/snapshots).
    let memory = shown.lines().find(|line| line.starts_with("batch 64"));
    let words: Vec<_> = memory.unwrap().split_whitespace().take(6).collect();
    assert_eq!(words, ["batch", "64", "2.1", "GiB", "1.3", "GiB"]);
    // A frozen network's and that of one that gives all maps, which are these many more floats of
    // each of 64 images (besides a second copy of the classifier).
    let plan = densenet_models::DenseNet121::PLAN;
    let blocks = plan.blocks().iter();
    let maps: usize = blocks.map(|block| block.output() * block.pixels()).sum();
    let more = 64 * 4 * (maps + 49 + 1024 * 49) + 4 * 1024 * 1000;
    let words: Vec<_> = memory.unwrap().split_whitespace().skip(6).collect();
    let bytes = |number: &str, unit: &str| {
        let unit = ["MiB", "GiB"].iter().position(|known| *known == unit);
        number.parse::<f64>().unwrap() * [1.0, 1024.0][unit.unwrap()]
    };
    let found = bytes(words[2], words[3]) - bytes(words[0], words[1]);
    // Gigabytes are given in tenths.
    let error = (found - more as f64 / f64::from(1 << 20)).abs();
    assert!(error < 110.0, "{found} MiB, not {more} bytes");
    let all = said(here, &["info"]);
    assert!(all.contains("cifar_bc_190_40 "), "{all}");
}

#[test]
fn info_says_what_a_network_allocates_on_a_cuda_device() {
    let _alone = cuda_emulator::alone();
    let emulator = cuda_emulator::Emulator::load(cuda_emulator::folder());
    let device = CudaDevice::open(0).unwrap_or_else(|error| panic!("{error}"));
    let plan = ParsedSpec::parse(EMULATED).unwrap().plan;
    let state = State::initial(&plan, 1);
    let shown = said(Path::new("."), &["info", EMULATED]);
    for precision in [Precision::F32, Precision::Bf16] {
        let rows = rows(&shown, &format!("CUDA, {precision}"));
        assert_eq!(rows.len(), 5, "{shown}");
        for (row, batch) in [(rows[0], 1), (rows[2], 32)] {
            let cells: Vec<_> = row.split("  ").map(str::trim).collect();
            let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
            assert_eq!(cells[0], format!("batch {batch}"));
            let mut expected = Vec::new();
            for outputs in [Outputs::default(), Outputs::all(1)] {
                let options = cuda::FrozenOptions {
                    precision,
                    outputs,
                    cache: Cache::Folder(cuda_emulator::folder().join("kernels")),
                    ..cuda::FrozenOptions::for_batch(batch)
                };
                let before = emulator.memory_used();
                let frozen =
                    cuda::Frozen::new(&device, &plan, &state.parameters, &state.running, options);
                let frozen = frozen.unwrap_or_else(|error| panic!("{error}"));
                expected.push(in_words((emulator.memory_used() - before) as u64));
                drop(frozen);
            }
            assert_eq!(cells[3..], expected, "{precision}: {row}");
        }
    }
}

#[test]
fn info_reads_the_words_of_the_macro_and_shows_mistakes_with_a_caret() {
    let here = Path::new(".");
    let words = "blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 18";
    let shown = said(here, &["info", words, "--input", "1x224x224"]);
    // torchxrayvision's DenseNet-121.
    assert!(
        shown.contains("121 layers, 6,966,034 parameters"),
        "{shown}"
    );
    let said = refusal(
        here,
        &["info", "blocks: [2, 2], k: 12, theta: 1.5, grow: 3"],
    );
    assert_eq!(
        said,
        "error: compression `theta` must be in (0, 1], found 1.5
  |
1 | blocks: [2, 2], k: 12, theta: 1.5, grow: 3
  |                               ^^^
  = help: theta = 0.5 keeps half of the feature maps at each transition (the paper's DenseNet-BC)
error: unknown key `grow`; did you mean `k` (growth rate)?
  |
1 | blocks: [2, 2], k: 12, theta: 1.5, grow: 3
  |                                    ^^^^
  = help: the keys are `blocks`, `k`, `theta`, `bottleneck`, `stem`, `init`, `input`, `classes`, `dropout`, `memory`
"
    );
}

#[test]
fn info_refuses_names_and_sizes_that_no_network_has() {
    let here = Path::new(".");
    let said = refusal(here, &["info", "densenet122"]);
    assert!(said.starts_with("error: unknown preset \"densenet122\"; choose one of densenet121, "));
    let said = refusal(here, &["info", "densenet121", "--input", "16"]);
    assert!(
        said.contains("a 16x16 input is too small: 16 -> 8 (stem conv)"),
        "{said}"
    );
    let said = refusal(here, &["info", "densenet121", "--input", "16x"]);
    assert!(said.contains("write it as 224"), "{said}");
}
