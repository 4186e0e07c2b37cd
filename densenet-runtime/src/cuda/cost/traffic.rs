//! Which elements a launch of a kernel reads and writes: a line a parameter, beside which its
//! declaration in `kernels/` can be read.

use crate::cuda::driver::{Kernel, Value};

/// A launch's kernel, constants and values.
pub(super) struct Arguments<'a> {
    kernel: &'a Kernel,
    grid: [usize; 3],
    values: &'a [Value],
}

/// What a launch moves, in bytes, and its product's operations.
#[derive(Default)]
pub(super) struct Traffic {
    pub reads: u64,
    pub writes: u64,
    pub operations: u64,
}

impl<'a> Arguments<'a> {
    pub fn new(kernel: &'a Kernel, grid: [usize; 3], values: &'a [Value]) -> Self {
        Self {
            kernel,
            grid,
            values,
        }
    }

    /// Whether products are in bf16.
    pub fn bf16(&self) -> bool {
        self.constant("BF16") == 1
    }

    fn constant(&self, name: &str) -> u64 {
        let constants = self.kernel.constants.iter();
        let mut own = constants.filter(|(constant, _)| *constant == name);
        own.next().map_or(0, |&(_, value)| value as u64)
    }

    /// The value of a parameter that is an `int`.
    fn int(&self, name: &str) -> i64 {
        let mut named = self.kernel.parameters.iter().zip(self.values);
        let value = named.find_map(|(parameter, value)| match value {
            Value::Int(value) if parameter.name == name => Some(*value),
            _ => None,
        });
        value.map_or(0, i64::from)
    }

    fn count(&self, name: &str) -> u64 {
        u64::try_from(self.int(name)).unwrap_or(0)
    }

    fn training(&self) -> bool {
        self.int("training") != 0
    }

    /// Bytes of the scalars that dropout reads: the seed.
    fn seed(&self) -> u64 {
        if self.constant("DROPOUT") == 1 && self.int("site") >= 0 {
            8
        } else {
            0
        }
    }

    /// Bytes of an element of what a parameter points to, as it is declared. What is declared
    /// under a name of its own is what the precision stores.
    fn element(&self, name: &str) -> u64 {
        let mut parameters = self.kernel.parameters.iter();
        let own = parameters.find(|parameter| parameter.name == name);
        match own.map(|parameter| parameter.of.as_str()) {
            None => 0,
            Some("Scalars" | "unsigned char") => 1,
            Some("float" | "unsigned" | "int") => 4,
            Some("double") => 8,
            Some(_) if self.bf16() => 2,
            Some(_) => 4,
        }
    }

    /// Sums: of each of so many channels, for each tile of rows that the grid has.
    fn partial(&self, channels: u64) -> u64 {
        2 * channels * self.grid[0] as u64
    }

    /// `reads` and `writes` are elements of the parameters named; of scalars, bytes.
    fn moves(&self, reads: &[(&str, u64)], writes: &[(&str, u64)]) -> Traffic {
        let bytes = |elements: &[(&str, u64)]| {
            let each = elements
                .iter()
                .map(|(name, count)| count * self.element(name));
            each.sum()
        };
        Traffic {
            reads: bytes(reads),
            writes: bytes(writes),
            operations: 0,
        }
    }
}

impl Traffic {
    /// With a product of `rows` x `columns` x `depth`.
    fn product(self, rows: u64, columns: u64, depth: u64) -> Option<Self> {
        Some(Self {
            operations: 2 * rows * columns * depth,
            ..self
        })
    }
}

/// What a launch moves and computes; nothing where the kernel is not known.
pub(super) fn traffic(a: &Arguments<'_>) -> Option<Traffic> {
    match a.kernel.name {
        name if name.starts_with("pointwise") || name.starts_with("spatial") => convolution(a),
        name if name.starts_with("transition") => transition(a),
        name if name.starts_with("stem") => stem(a),
        name if name.starts_with("classify") || name.starts_with("head") => head(a),
        "cross_entropy" => head(a),
        _ => norm(a).or_else(|| step(a)),
    }
}

fn convolution(a: &Arguments<'_>) -> Option<Traffic> {
    let (pixels, channels) = (a.count("pixels"), a.count("channels"));
    let maps = a.constant("MAPS");
    let taps = if a.kernel.family == "spatial" { 9 } else { 1 };
    let weight = maps * channels * taps;
    let (input, output) = (pixels * channels, pixels * maps);
    let traffic = match a.kernel.name {
        "pointwise_forward" | "spatial_forward" => a.moves(
            &[
                ("in", input),
                ("scale", channels),
                ("shift", channels),
                ("weight", weight),
                ("scalars", a.seed()),
            ],
            &[
                ("out", output),
                ("partial", if a.training() { a.partial(maps) } else { 0 }),
            ],
        ),
        "spatial_pull" => {
            let added = a.count("add");
            a.moves(
                &[
                    ("dout", output),
                    ("weight", weight),
                    ("in", input),
                    ("scale", channels),
                    ("shift", channels),
                    ("mean", channels),
                    ("gamma", added * channels),
                    ("into", added * input),
                ],
                &[("into", input), ("partial", a.partial(channels))],
            )
        }
        "pointwise_back" => {
            // Of one group of maps.
            let slices = a.grid[1] as u64;
            let group = a.constant("GROUP").min(maps - a.count("map0"));
            let (weight, output) = (group * channels, pixels * group);
            let moved = a.moves(
                &[
                    ("dout", output),
                    ("weight", weight),
                    ("in", input),
                    ("scale", channels),
                    ("shift", channels),
                    ("mean", channels),
                    ("gamma", channels),
                    ("into", input),
                ],
                &[
                    ("into", input),
                    ("partial", 2 * channels * slices),
                    ("share", slices * weight),
                ],
            );
            // Two products: for the input's gradient and the weight's.
            return moved.product(pixels, 2 * group, channels);
        }
        "spatial_weight" => a.moves(
            &[
                ("dout", output),
                ("in", input),
                ("scale", channels),
                ("shift", channels),
            ],
            &[("share", a.grid[2] as u64 * weight)],
        ),
        _ => return None,
    };
    traffic.product(pixels, maps, channels * taps)
}

fn transition(a: &Arguments<'_>) -> Option<Traffic> {
    let (channels, maps, pooled) = (a.constant("IN"), a.constant("OUT"), a.count("pooled"));
    let dropped = a.kernel.name.ends_with("_dropped");
    let seed = if dropped { a.seed() } else { 0 };
    let (input, output, weight) = (4 * pooled * channels, pooled * maps, channels * maps);
    // The grid counts tiles of rows times those across.
    let partial = |channels: u64| a.partial(channels) / channels.div_ceil(a.constant("COLUMNS"));
    let traffic = match a.kernel.name.trim_end_matches("_dropped") {
        "transition_forward" => a.moves(
            &[
                ("in", input),
                ("scale", channels),
                ("shift", channels),
                ("weight", weight),
                ("scalars", seed),
            ],
            &[
                ("out", output),
                ("partial", if a.training() { partial(maps) } else { 0 }),
            ],
        ),
        "transition_pull" => a.moves(
            &[
                ("dout", output),
                ("weight", weight),
                ("in", input),
                ("scale", channels),
                ("shift", channels),
                ("mean", channels),
                ("gamma", channels),
                ("scalars", seed),
            ],
            &[("into", input), ("partial", partial(channels))],
        ),
        "transition_weight" => a.moves(
            &[
                ("dout", output),
                ("in", input),
                ("scale", channels),
                ("shift", channels),
                ("scalars", seed),
            ],
            &[("share", a.grid[2] as u64 * weight)],
        ),
        _ => return None,
    };
    // Dropout is before the pool, so that its product has all pixels.
    traffic.product(pooled * if dropped { 4 } else { 1 }, maps, channels)
}

fn stem(a: &Arguments<'_>) -> Option<Traffic> {
    let (maps, step) = (a.constant("MAPS"), a.constant("STEP"));
    let (height, width) = (a.constant("HEIGHT"), a.constant("WIDTH"));
    let patch = a.constant("KERNEL").pow(2) * a.constant("CHANNELS");
    let convolved_size = (height.div_ceil(step), width.div_ceil(step));
    let area = convolved_size.0 * convolved_size.1;
    let pooled_area = convolved_size.0.div_ceil(2) * convolved_size.1.div_ceil(2);
    let images = if a.kernel.name == "stem_pool" {
        a.count("pooled") / pooled_area
    } else {
        a.count("pixels") / area
    };
    let pixels = images * area;
    let image_values = images * height * width * a.constant("CHANNELS");
    let (convolved, pooled) = (pixels * maps, images * pooled_area * maps);
    match a.kernel.name {
        "stem_forward" => a
            .moves(
                &[("images", image_values), ("weight", maps * patch)],
                &[
                    ("out", convolved),
                    ("partial", if a.training() { a.partial(maps) } else { 0 }),
                ],
            )
            .product(pixels, maps, patch),
        "stem_pool" => Some(a.moves(
            &[("convolved", convolved), ("scale", maps), ("shift", maps)],
            &[
                ("out", pooled),
                ("choice", pooled),
                ("partial", if a.training() { a.partial(maps) } else { 0 }),
            ],
        )),
        "stem_sums" => Some(a.moves(
            &[
                ("dout", pooled),
                ("choice", pooled),
                ("convolved", convolved),
                ("scale", maps),
                ("shift", maps),
                ("mean", maps),
            ],
            &[("partial", a.partial(maps))],
        )),
        "stem_weight" => {
            let share = ("share", a.grid[2] as u64 * maps * patch);
            let gradient: &[(&str, u64)] = if a.constant("POOL") == 1 {
                &[
                    ("dout", pooled),
                    ("choice", pooled),
                    ("convolved", convolved),
                    ("undo", 4 * maps),
                    ("images", image_values),
                ]
            } else {
                &[("dout", convolved), ("images", image_values)]
            };
            a.moves(gradient, &[share]).product(pixels, maps, patch)
        }
        _ => None,
    }
}

fn head(a: &Arguments<'_>) -> Option<Traffic> {
    let (channels, classes) = (a.constant("CHANNELS"), a.constant("CLASSES"));
    let batch = a.count("batch");
    let (weight, features, logits) = (channels * classes, batch * channels, batch * classes);
    let maps = features * a.constant("PIXELS");
    match a.kernel.name {
        "head_pool" => Some(a.moves(
            &[("x", maps), ("scale", channels), ("shift", channels)],
            &[("features", features)],
        )),
        "classify" => a
            .moves(
                &[
                    ("features", features),
                    ("weight", weight),
                    ("bias", classes),
                ],
                &[("logits", logits)],
            )
            .product(batch, classes, channels),
        "cross_entropy" => {
            let trained = u64::from(a.training());
            Some(a.moves(
                &[
                    ("logits", logits),
                    ("labels", batch),
                    // Smoothing and scale.
                    ("scalars", 8 * trained),
                ],
                &[("gradient", trained * logits), ("results", 3 * batch)],
            ))
        }
        "classify_weight" => a
            .moves(
                &[
                    ("dlogits", logits),
                    ("features", features),
                    ("dweight", weight),
                    ("dbias", classes),
                ],
                &[("dweight", weight), ("dbias", classes)],
            )
            .product(classes, channels, batch),
        "classify_features" => a
            .moves(
                &[("dlogits", logits), ("weight", weight)],
                &[("dfeatures", features)],
            )
            .product(batch, channels, classes),
        "head_pull" => Some(a.moves(
            &[
                ("dfeatures", features),
                ("x", maps),
                ("scale", channels),
                ("shift", channels),
                ("mean", channels),
                ("gamma", channels),
            ],
            &[("g", maps), ("partial", a.partial(channels))],
        )),
        _ => None,
    }
}

fn norm(a: &Arguments<'_>) -> Option<Traffic> {
    let (pixels, channels) = (a.count("pixels"), a.count("channels"));
    let tiles = 2 * a.count("tiles") * channels;
    Some(match a.kernel.name {
        "prepare" => {
            let fresh = a.count("count");
            let trained = u64::from(a.training()) * channels;
            a.moves(
                &[
                    ("partial", 2 * a.count("tiles") * fresh),
                    ("gamma", channels),
                    ("beta", channels),
                    ("mean", trained),
                    ("variance", trained),
                    ("inverse", trained),
                    ("running", 2 * channels),
                ],
                &[
                    ("mean", fresh),
                    ("variance", fresh),
                    ("inverse", fresh),
                    ("running", 2 * trained),
                    ("scale", channels),
                    ("shift", channels),
                ],
            )
        }
        "gather" => {
            let added = a.count("add") * channels;
            let count = a.count("count");
            a.moves(
                &[
                    ("partial", tiles),
                    ("gamma", channels),
                    ("inverse", channels),
                    ("dgamma", channels),
                    ("dbeta", channels),
                    ("plain", added),
                    ("normalised", added),
                    ("share", a.count("slices") * count),
                    ("gradient", count),
                ],
                &[
                    ("dgamma", channels),
                    ("dbeta", channels),
                    ("plain", channels),
                    ("normalised", channels),
                    ("gradient", count),
                ],
            )
        }
        "finish" => {
            let count = a.count("count");
            a.moves(
                &[
                    ("g", pixels * count),
                    ("x", pixels * count),
                    ("mean", count),
                    ("inverse", count),
                    ("plain", count),
                    ("normalised", count),
                    ("scalars", a.seed()),
                ],
                &[("into", pixels * count)],
            )
        }
        "undo" => {
            let maps = a.count("maps");
            a.moves(
                &[
                    ("dy", pixels * maps),
                    ("y", pixels * maps),
                    ("mean", maps),
                    ("inverse", maps),
                    ("gamma", maps),
                    ("plain", maps),
                    ("normalised", maps),
                    ("scalars", a.seed()),
                ],
                &[("dy", pixels * maps)],
            )
        }
        "undo_numbers" => {
            let maps = a.count("maps");
            a.moves(
                &[
                    ("mean", maps),
                    ("inverse", maps),
                    ("gamma", maps),
                    ("plain", maps),
                    ("normalised", maps),
                ],
                &[("into", 4 * maps)],
            )
        }
        _ => return None,
    })
}

fn step(a: &Arguments<'_>) -> Option<Traffic> {
    let count = a.count("count");
    Some(match a.kernel.name {
        "images_from_nchw" => {
            let values = a.count("batch") * a.count("area") * a.count("channels");
            a.moves(&[("from", values)], &[("into", values)])
        }
        "images_from_bytes" => {
            let values = a.count("pixels") * a.count("channels");
            a.moves(
                &[("from", values), ("norm", 2 * a.count("channels"))],
                &[("into", values)],
            )
        }
        "pack_weights" => {
            let (values, words) = (a.constant("VALUES"), 5 * a.grid[1] as u64);
            a.moves(
                &[("parameters", values), ("table", words)],
                &[("packed", values)],
            )
        }
        // Of a step that does not accumulate.
        "start" => {
            let statistics = a.count("statistics");
            // Whether to accumulate, and whether a loss was not finite.
            a.moves(
                &[("running", statistics), ("scalars", 8)],
                &[("gradient", count), ("before", statistics)],
            )
        }
        "descend" => a.moves(
            &[
                ("parameters", count),
                ("momentum", count),
                ("gradient", count),
                // Rate, momentum, decay, whether it is Nesterov's, and whether to descend.
                ("scalars", 20),
            ],
            &[("parameters", count), ("momentum", count)],
        ),
        _ => return None,
    })
}
