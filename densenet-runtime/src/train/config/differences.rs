//! The differences between two runs' settings, in words.

use std::fmt::Display;

use super::super::{PartRate, Schedule};
use super::Config;

impl Config {
    /// The differences between the settings of a checkpoint and these that change the run's
    /// numbers, one line each. Threads, recompute and thresholds may change, and so may the length of a run if
    /// its learning rate does not depend on it.
    pub(in crate::train) fn differences(&self, checkpoint: &Self) -> Vec<String> {
        let Self {
            epochs,
            batch,
            accumulation,
            schedule,
            momentum,
            nesterov,
            weight_decay,
            optimizer,
            clip,
            part_rates,
            no_decay,
            freeze,
            ema,
            label_smoothing,
            loss_weights,
            best_by,
            threshold: _,
            precise_bn,
            seed,
            precision,
            threads: _,
            recompute: _,
        } = checkpoint;
        let mut epochs = *epochs;
        if !self.schedule.depends_on_length() {
            epochs = self.epochs;
        }
        let mut found = Vec::new();
        let mut compare = |what: &str, before: &dyn Display, now: &dyn Display| {
            // Numbers are printed exactly, so equal words are equal settings.
            let (before, now) = (before.to_string(), now.to_string());
            if before != now {
                found.push(format!("{what} was {before} and is {now}"));
            }
        };
        compare("epochs", &epochs, &self.epochs);
        compare("batch", batch, &self.batch);
        compare("accumulation", accumulation, &self.accumulation);
        compare(
            "learning rate",
            &schedule.learning_rate,
            &self.schedule.learning_rate,
        );
        let warmup = |schedule: &Schedule| format!("{} epochs", schedule.warmup);
        compare("warm-up", &warmup(schedule), &warmup(&self.schedule));
        compare(
            "decay of the learning rate",
            &schedule.decay,
            &self.schedule.decay,
        );
        compare("optimiser", optimizer, &self.optimizer);
        compare("momentum", momentum, &self.momentum);
        let form = |nesterov| if nesterov { "Nesterov's" } else { "plain" };
        compare("form of momentum", &form(*nesterov), &form(self.nesterov));
        compare("weight decay", weight_decay, &self.weight_decay);
        let norm = |clip: Option<f32>| clip.map_or("any".into(), |most| most.to_string());
        compare("largest norm of gradients", &norm(*clip), &norm(self.clip));
        let shares = |parts: &[PartRate]| {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            if parts.is_empty() {
                "those of all".into()
            } else {
                parts.join(", ")
            }
        };
        compare(
            "shares of the learning rate",
            &shares(part_rates),
            &shares(&self.part_rates),
        );
        let decayed = |no_decay| if no_decay { "weights" } else { "everything" };
        compare("what decays", &decayed(*no_decay), &decayed(self.no_decay));
        compare("what is frozen", freeze, &self.freeze);
        let decay = |ema: Option<f64>| ema.map_or("none".into(), |decay| decay.to_string());
        compare("decay of the average", &decay(*ema), &decay(self.ema));
        compare("label smoothing", label_smoothing, &self.label_smoothing);
        let weights = |own: &[f32]| match own {
            [] => "1 for each".to_string(),
            own => format!("{own:?}"),
        };
        compare(
            "class weights",
            &weights(&loss_weights.classes),
            &weights(&self.loss_weights.classes),
        );
        compare(
            "positive weights",
            &weights(&loss_weights.positive),
            &weights(&self.loss_weights.positive),
        );
        compare("score of the best evaluation", best_by, &self.best_by);
        let batches = |count: u32| format!("{count} batches");
        compare(
            "precise BN",
            &batches(*precise_bn),
            &batches(self.precise_bn),
        );
        compare("seed", seed, &self.seed);
        compare("precision", precision, &self.precision);
        found
    }
}
