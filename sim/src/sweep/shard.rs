//! Which part of a sweep's points is ours, where several machines share it: every n-th one.

use std::str::FromStr;

/// A part of the points.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: u32,
    count: u32,
}

/// Why it is not known which part is ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// It is written in another way.
    #[error("`{0}` is no shard; write it as 1/4, from 1/4 to 4/4, or auto")]
    Text(String),
    /// Nobody has said.
    #[error("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; run it in an array job, or pass --shard i/n")]
    Unset,
    /// A variable is missing or is no number.
    #[error("{variable} must be {what}; set it, or pass --shard i/n")]
    Variable {
        /// Which.
        variable: &'static str,
        /// What it should be.
        what: &'static str,
    },
    /// The array has gaps.
    #[error("the array's ids are not evenly spaced; use --array=1-N, or pass --shard i/n")]
    Gaps,
}

impl Shard {
    /// All points.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// What Slurm or Kubernetes say in the environment, which `get` reads: of the task's place in its array
    /// (`SLURM_ARRAY_TASK_ID` and its like), or in its indexed Job (`JOB_COMPLETION_INDEX`, whose number of completions the
    /// user hands on as `JOB_COMPLETIONS`).
    ///
    /// # Errors
    /// See [`ShardError`].
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, ShardError> {
        if get("SLURM_ARRAY_TASK_ID").is_some() {
            Self::from_slurm(&get)
        } else if get("JOB_COMPLETION_INDEX").is_some() {
            Self::from_kubernetes(&get)
        } else {
            Err(ShardError::Unset)
        }
    }

    fn from_slurm(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, ShardError> {
        let id = number(get, "SLURM_ARRAY_TASK_ID", "the task's id")?;
        let count = number(get, "SLURM_ARRAY_TASK_COUNT", "the number of the array's tasks")?;
        let first = number(get, "SLURM_ARRAY_TASK_MIN", "the array's least id")?;
        let last = number(get, "SLURM_ARRAY_TASK_MAX", "the array's greatest id")?;
        // Not every version says it.
        let step = match get("SLURM_ARRAY_TASK_STEP") {
            Some(_) => number(get, "SLURM_ARRAY_TASK_STEP", "the distance of the array's ids")?,
            None => last.saturating_sub(first).checked_div(count.saturating_sub(1)).unwrap_or(1),
        };
        let index = |id: u32| id.checked_sub(first).filter(|_| step > 0).map(|beyond| (beyond / step, beyond % step));
        match (index(id), index(last)) {
            // In an array with gaps a task would take another's points, or some would be nobody's.
            (Some((index, 0)), Some((greatest, 0))) if index < count && greatest + 1 == count => {
                Ok(Self { index, count })
            }
            _ => Err(ShardError::Gaps),
        }
    }

    fn from_kubernetes(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, ShardError> {
        const COMPLETIONS: &str = "the number of the Job's completions, more than JOB_COMPLETION_INDEX";
        let index = number(get, "JOB_COMPLETION_INDEX", "a number from 0")?;
        let count = number(get, "JOB_COMPLETIONS", COMPLETIONS)?;
        if index >= count {
            return Err(ShardError::Variable { variable: "JOB_COMPLETIONS", what: COMPLETIONS });
        }
        Ok(Self { index, count })
    }

    /// Whether a point is in it, by number from 1.
    pub fn has(self, number: u32) -> bool {
        (number - 1) % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse::<u32>().ok()?, n.parse::<u32>().ok()?)));
        match parts {
            Some((number, count)) if number >= 1 && number <= count => Ok(Self { index: number - 1, count }),
            _ => Err(ShardError::Text(text.to_owned())),
        }
    }
}

fn number(get: &dyn Fn(&str) -> Option<String>, variable: &'static str, what: &'static str) -> Result<u32, ShardError> {
    let value = get(variable).and_then(|text| text.trim().parse().ok());
    value.ok_or(ShardError::Variable { variable, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(environment: &str) -> Result<Shard, ShardError> {
        let pairs: Vec<(&str, &str)> = environment.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        Shard::from_environment(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn every_nth_point_is_ours() {
        let shard: Shard = "2/3".parse().unwrap();
        assert_eq!((1..=8).filter(|number| shard.has(*number)).collect::<Vec<_>>(), [2, 5, 8]);
        assert!((1..=8).all(|number| Shard::ALL.has(number)));
        for text in ["", "0/3", "4/3", "1", "a/b", "1/0", "-1/2"] {
            assert_eq!(text.parse::<Shard>(), Err(ShardError::Text(text.into())));
        }
    }

    #[test]
    fn slurm_says_which() {
        let slurm = |id, rest: &str| from(&format!("SLURM_ARRAY_TASK_ID={id} {rest}"));
        let four = "SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=4 SLURM_ARRAY_TASK_STEP=1";
        assert_eq!(slurm(3, four), "3/4".parse());
        let from_0 = "SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=20 SLURM_ARRAY_TASK_STEP=10";
        assert_eq!(slurm(20, from_0), "3/3".parse());
        assert_eq!(slurm(20, from_0.strip_suffix(" SLURM_ARRAY_TASK_STEP=10").unwrap()), "3/3".parse());
        let alone = "SLURM_ARRAY_TASK_COUNT=1 SLURM_ARRAY_TASK_MIN=7 SLURM_ARRAY_TASK_MAX=7";
        assert_eq!(slurm(7, alone), Ok(Shard::ALL));
        let gaps = "SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_STEP=1";
        assert_eq!(slurm(3, gaps), Err(ShardError::Gaps));
        assert_eq!(slurm(9, four), Err(ShardError::Gaps));
        let error = slurm(9, "SLURM_ARRAY_TASK_MIN=1").unwrap_err().to_string();
        assert!(error.starts_with("SLURM_ARRAY_TASK_COUNT must be"), "{error}");
    }

    #[test]
    fn kubernetes_says_which() {
        assert_eq!(from("JOB_COMPLETION_INDEX=0 JOB_COMPLETIONS=2"), "1/2".parse());
        for environment in ["JOB_COMPLETION_INDEX=0", "JOB_COMPLETION_INDEX=2 JOB_COMPLETIONS=2"] {
            let error = from(environment).unwrap_err().to_string();
            assert!(error.starts_with("JOB_COMPLETIONS must be"), "{error}");
        }
        assert_eq!(from("HOME=x"), Err(ShardError::Unset));
    }
}
