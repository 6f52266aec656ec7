//! The gradient gate: a parameter that should learn and cannot is found in the first steps, not after the run.

/// Steps with any gradient at all over which every trainable parameter must show one.
const GATE_STEPS: u64 = 3;
/// Steps of nothing but zeros after which a run is given up.
const DEAD_STEPS: u64 = 20;

/// Watches the gradient norm of each parameter.
#[derive(Debug, Default)]
pub struct GradientGate {
    /// Names of trainable parameters that have not shown a gradient yet; `None` before the opening step.
    silent: Option<Vec<String>>,
    counted: u64,
    zero_steps: u64,
}

/// What a step's gradients looked like: one entry for each parameter.
#[derive(Debug, Clone)]
pub struct GradientNorm {
    /// The parameter.
    pub name: String,
    /// Whether it should learn.
    pub trainable: bool,
    /// Sum of squares of its gradient; `None` where backward did not reach it.
    pub square: Option<f64>,
}

/// Why the gate stops a run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GateError {
    /// Backward never reached parameters that should learn.
    #[error("{} never get a gradient: {}", count(names), names.join(", "))]
    Missing {
        /// The parameters.
        names: Vec<String>,
    },
    /// Gradients that are zero in every counted step.
    #[error("{} have a gradient of zero in {GATE_STEPS} steps: {}", count(names), names.join(", "))]
    Zero {
        /// The parameters.
        names: Vec<String>,
    },
    /// A parameter that is frozen got a gradient.
    #[error("`{name}` is frozen but got a gradient")]
    Frozen {
        /// The parameter.
        name: String,
    },
    /// Nothing at all has a gradient.
    #[error("every gradient was zero in the first {DEAD_STEPS} steps")]
    Dead,
}

fn count(names: &[String]) -> String {
    format!("{} trainable parameter{}", names.len(), if names.len() == 1 { "" } else { "s" })
}

impl GradientGate {
    /// Steps so far in which every gradient was zero.
    pub fn zero_steps(&self) -> u64 {
        self.zero_steps
    }

    /// Looks at the gradients of one step, before the update.
    ///
    /// # Errors
    /// See [`GateError`].
    pub fn check(&mut self, norms: &[GradientNorm]) -> Result<(), GateError> {
        if let Some(frozen) = norms.iter().find(|norm| !norm.trainable && norm.square.is_some()) {
            return Err(GateError::Frozen { name: frozen.name.clone() });
        }
        let trainable = || norms.iter().filter(|norm| norm.trainable);
        let missing: Vec<String> =
            trainable().filter(|norm| norm.square.is_none()).map(|norm| norm.name.clone()).collect();
        if !missing.is_empty() {
            return Err(GateError::Missing { names: missing });
        }
        if self.counted == GATE_STEPS {
            return Ok(());
        }
        if trainable().all(|norm| norm.square == Some(0.0)) {
            self.zero_steps += 1;
            let dead = self.counted == 0 && self.zero_steps == DEAD_STEPS;
            return if dead { Err(GateError::Dead) } else { Ok(()) };
        }
        self.counted += 1;
        let silent = self.silent.get_or_insert_with(|| trainable().map(|n| n.name.clone()).collect());
        let loud = |name: &String| norms.iter().any(|n| &n.name == name && n.square != Some(0.0));
        silent.retain(|name| !loud(name));
        match self.counted == GATE_STEPS && !silent.is_empty() {
            true => Err(GateError::Zero { names: silent.clone() }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(name: &str, trainable: bool, square: Option<f64>) -> GradientNorm {
        GradientNorm { name: name.into(), trainable, square }
    }

    #[test]
    fn a_missing_gradient_is_named_at_once() {
        let norms = [norm("a", true, Some(1.0)), norm("b", true, None), norm("c", false, None)];
        let error = GradientGate::default().check(&norms).unwrap_err();
        assert_eq!(error, GateError::Missing { names: vec!["b".into()] });
    }

    #[test]
    fn a_frozen_parameter_must_not_get_one() {
        let norms = [norm("a", true, Some(1.0)), norm("b", false, Some(1.0))];
        let error = GradientGate::default().check(&norms).unwrap_err();
        assert_eq!(error, GateError::Frozen { name: "b".into() });
    }

    #[test]
    fn zero_in_three_counted_steps_is_refused_but_zero_steps_do_not_count() {
        let mut gate = GradientGate::default();
        let silent = [norm("a", true, Some(1.0)), norm("b", true, Some(0.0))];
        let zero = [norm("a", true, Some(0.0)), norm("b", true, Some(0.0))];
        for norms in [&zero, &silent, &zero, &silent, &zero] {
            gate.check(norms).unwrap();
        }
        assert_eq!(gate.zero_steps(), 3);
        assert_eq!(gate.check(&silent), Err(GateError::Zero { names: vec!["b".into()] }));
    }

    #[test]
    fn a_parameter_that_speaks_once_passes() {
        let mut gate = GradientGate::default();
        let silent = [norm("a", true, Some(1.0)), norm("b", true, Some(0.0))];
        let loud = [norm("a", true, Some(0.0)), norm("b", true, Some(1.0))];
        for norms in [&silent, &loud, &silent, &silent, &silent] {
            gate.check(norms).unwrap();
        }
    }

    #[test]
    fn twenty_steps_of_zeros_are_dead() {
        let mut gate = GradientGate::default();
        let zero = [norm("a", true, Some(0.0))];
        for _ in 0..19 {
            gate.check(&zero).unwrap();
        }
        assert_eq!(gate.check(&zero), Err(GateError::Dead));
    }
}
