//! What becomes of derived files, and of the data file that they come from: part of the scenario `crash`.

use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::op::Request;
use crate::scenario::crash;
use crate::scenario::script::{Act, Script};

/// What is done to a derived file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// It is gone.
    Removed,
    /// It has no bytes.
    Emptied,
    /// Its second half is gone.
    Cut,
    /// It holds something else.
    Overwritten,
}

impl Damage {
    const ALL: [Self; 4] = [Self::Removed, Self::Emptied, Self::Cut, Self::Overwritten];

    /// What is left of this content; nothing where the file is.
    pub fn of(self, content: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Removed => None,
            Self::Emptied => Some(Vec::new()),
            Self::Cut => Some(content[..content.len() / 2].to_vec()),
            Self::Overwritten => Some(b"overwritten\n".to_vec()),
        }
    }
}

/// Each derived file damaged in each way, and rebuilt; and the data file emptied, where that is broken for certain.
pub fn scripts(files: &[String], data: Option<&str>) -> Vec<Script> {
    let source = data.map(|data| (data.to_owned(), Damage::Emptied));
    let all = files.iter().flat_map(|file| Damage::ALL.map(|damage| (file.clone(), damage)));
    all.chain(source)
        .map(|(file, damage)| Script { acts: with(vec![Act::Damage { file, damage }]) })
        .collect()
}

/// With no derived file there, as in the baseline run, the rebuild killed at each of these points, and done again.
pub fn kills(files: &[String], calls: &[Call], points: &[u32]) -> Vec<Script> {
    let removed: Vec<Act> =
        files.iter().map(|file| Act::Damage { file: file.clone(), damage: Damage::Removed }).collect();
    let kills = crash::kills(&Request::Rebuild, calls, points).into_iter();
    let killed = |script: Script| script.acts.into_iter().take(1);
    kills
        .map(|script| Script { acts: with(removed.iter().cloned().chain(killed(script)).collect()) })
        .collect()
}

/// Two undisturbed rebuilds, the misfortune, and another.
fn with(misfortune: Vec<Act>) -> Vec<Act> {
    let rebuild = || Act::Operate(Request::Rebuild);
    [vec![Act::Look, rebuild(), rebuild()], misfortune, vec![rebuild()]].concat()
}
