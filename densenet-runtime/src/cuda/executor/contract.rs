//! The executors' contract: a step's settings as words of the kernels' `Scalars`, and its outcome.

use super::super::memory::most_groups;
use super::super::program::{BROKEN, DESCENT_WORDS, STEP_WORDS};
use super::super::reducer::Reducer;
use super::{CudaExecutor, Work};
use crate::executor::{
    Arena, Batch, Descent, Executor, ExecutorError, Group, LossWeights, NORM_EPSILON, Optimizer,
    Outcome, Pending, Step, check_length, check_loss_weights, check_smoothing,
};
use crate::parallel::step_of;
use crate::plan::Plan;

impl CudaExecutor {
    fn step_words(&self, step: Step) -> [u32; STEP_WORDS] {
        let step = step_of(step, self.rank());
        [
            step.seed as u32,
            (step.seed >> 32) as u32,
            step.label_smoothing.to_bits(),
            step.scale.to_bits(),
            u32::from(step.accumulate),
        ]
    }
}

/// In the order of the kernels' `Scalars`.
fn descent_words(descent: Descent) -> [u32; DESCENT_WORDS] {
    let clip = descent.clip.unwrap_or(0.0);
    let fresh = descent.fresh().unwrap_or(0.0);
    let (common, nesterov, adam) = match descent.optimizer {
        Optimizer::Sgd(own) => {
            let common = [own.learning_rate, own.momentum, own.weight_decay].map(f32::to_bits);
            (common, u32::from(own.nesterov), [0.0; 5])
        }
        Optimizer::AdamW(own) => {
            let ([fresh1, fresh2], [first, second]) = (own.fresh(), own.corrections());
            let common = [own.learning_rate, 0.0, own.weight_decay].map(f32::to_bits);
            (common, 0, [fresh1, fresh2, first, second, own.epsilon])
        }
    };
    let rest = adam.into_iter().chain([clip, NORM_EPSILON, fresh]);
    let all = common.into_iter().chain([nesterov]);
    let all = all.chain(rest.map(f32::to_bits));
    let mut words = [0; DESCENT_WORDS];
    words
        .iter_mut()
        .zip(all)
        .for_each(|(into, word)| *into = word);
    words
}

impl Executor for CudaExecutor {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn capacity(&self) -> usize {
        self.options.batch
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError> {
        let (at, range) = self.kept(arena)?;
        check_length(arena.what(), range.end, into.len())?;
        let (frozen, own) = into.split_at_mut(range.start);
        frozen.fill(0.0);
        Ok(self.device.download(at, own)?)
    }

    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError> {
        let (at, range) = self.kept(arena)?;
        check_length(arena.what(), range.end, from.len())?;
        Ok(self.device.upload(&from[range], at)?)
    }

    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError> {
        check_loss_weights(weights, Some(self.plan.classes()))?;
        self.loss_weights.clone_from(weights);
        Ok(self.upload_loss_weights()?)
    }

    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        let pending = self.start(batch, step)?;
        self.finish(pending)
    }

    fn rank(&self) -> usize {
        self.reducer.as_ref().map_or(0, Reducer::rank)
    }

    fn start(&mut self, batch: Batch<'_>, step: Step) -> Result<Pending, ExecutorError> {
        check_smoothing(batch.targets, step)?;
        let number = self.begin(batch, Work::Differentiate, &self.step_words(step));
        number.map(Pending::later)
    }

    fn step(
        &mut self,
        batch: Batch<'_>,
        step: Step,
        descent: Descent,
    ) -> Result<Pending, ExecutorError> {
        check_smoothing(batch.targets, step)?;
        let mut words = [0; STEP_WORDS + DESCENT_WORDS];
        words[..STEP_WORDS].copy_from_slice(&self.step_words(step));
        words[STEP_WORDS..].copy_from_slice(&descent_words(descent));
        self.prepare(descent)?;
        self.begin(batch, Work::Step, &words).map(Pending::later)
    }

    fn finish(&mut self, pending: Pending) -> Result<Outcome, ExecutorError> {
        let Some(number) = pending.number() else {
            return pending.into_outcome();
        };
        let mut outcome = self.end(number)?;
        if let Some(reducer) = &self.reducer {
            // If the loss of one rank is not finite, the mean is not finite on any, and all stop.
            outcome.loss = reducer.mean(outcome.loss)?;
        }
        if !outcome.loss.is_finite() {
            // The host knows now, so it decides about gradient descent again. The running
            // statistics are restored; since this is rare, they are copied through the host.
            let (running, range) = self.arena(Arena::Running);
            let mut before = vec![0.0f32; range.len()];
            let kept = self.buffers.at(self.slots.running_before);
            self.device.download(kept, &mut before)?;
            self.device.upload(&before, running)?;
            let scalars = self.buffers.at(self.slots.scalars);
            self.device.clear(scalars.floats(BROKEN), 4)?;
        }
        Ok(outcome)
    }

    fn set_groups(&mut self, groups: &[Group]) -> Result<(), ExecutorError> {
        Group::check(groups, &self.plan)?;
        let most = most_groups(&self.plan);
        check_length(
            "the most groups of parameters",
            most,
            groups.len().max(most),
        )?;
        Ok(self.write_groups(groups)?)
    }

    fn descend(&mut self, descent: Descent) -> Result<(), ExecutorError> {
        self.prepare(descent)?;
        let words = descent_words(descent);
        let scalars = self.buffers.at(self.slots.scalars);
        self.feed
            .descent(&self.device, words, scalars.floats(STEP_WORDS))?;
        let member = self.member();
        Ok(self
            .pass(&member, true)
            .surroundings()
            .descend(self.manner)?)
    }

    fn update_statistics(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        // The gradients stay, as accumulated ones do.
        let step = Step {
            accumulate: true,
            ..Step::default()
        };
        let number = self.begin(batch, Work::Measure, &self.step_words(step))?;
        self.end(number).map(drop)
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        let number = self.begin(batch, Work::Evaluate, &[])?;
        self.end(number)
    }

    fn total(&mut self, sums: &mut [f64]) -> Result<(), ExecutorError> {
        match &self.reducer {
            Some(reducer) => Ok(reducer.sum(sums)?),
            None => Ok(()),
        }
    }

    fn gather(&mut self, own: &[f64]) -> Result<Vec<f64>, ExecutorError> {
        match &self.reducer {
            Some(reducer) => Ok(reducer.gather(own)?),
            None => Ok(own.to_vec()),
        }
    }

    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        check_length(
            "the latest logits",
            self.latest * self.plan.classes(),
            into.len(),
        )?;
        Ok(self
            .device
            .download(self.buffers.at(self.slots.logits), into)?)
    }
}
