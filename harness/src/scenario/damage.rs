//! What becomes of derived files, and of the data file that they come from: part of the scenario `crash`.

use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::op::Request;
use crate::scenario::crash;
use crate::scenario::script::{Act, Script};

/// Damage to a derived file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// The file is removed.
    Removed,
    /// The file is emptied.
    Emptied,
    /// The second half is cut off.
    Cut,
    /// The content is replaced.
    Overwritten,
}

impl Damage {
    const ALL: [Self; 4] = [Self::Removed, Self::Emptied, Self::Cut, Self::Overwritten];

    /// Returns the damaged content; `None` if the file is removed.
    pub fn of(self, content: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Removed => None,
            Self::Emptied => Some(Vec::new()),
            Self::Cut => Some(content[..content.len() / 2].to_vec()),
            Self::Overwritten => Some(b"overwritten\n".to_vec()),
        }
    }
}

/// Damages each derived file in each way, then rebuilds; also empties the data file, if that breaks it for certain.
pub fn scripts(files: &[String], data: Option<&str>) -> Vec<Script> {
    let source = data.map(|data| (data.to_owned(), Damage::Emptied));
    let all = files.iter().flat_map(|file| Damage::ALL.map(|damage| (file.clone(), damage)));
    all.chain(source)
        .map(|(file, damage)| Script { acts: with(vec![Act::Damage { file, damage }]) })
        .collect()
}

/// Removes the derived files, as in the baseline run, kills the rebuild at each of these points, and rebuilds again.
pub fn kills(files: &[String], calls: &[Call], points: &[u32]) -> Vec<Script> {
    let removed: Vec<Act> =
        files.iter().map(|file| Act::Damage { file: file.clone(), damage: Damage::Removed }).collect();
    let kills = crash::kills(&Request::Rebuild, calls, points).into_iter();
    let killed = |script: Script| script.acts.into_iter().take(1);
    kills
        .map(|script| Script { acts: with(removed.iter().cloned().chain(killed(script)).collect()) })
        .collect()
}

/// Makes a script of two baseline rebuilds, the damage, and another rebuild.
fn with(misfortune: Vec<Act>) -> Vec<Act> {
    let rebuild = || Act::Operate(Request::Rebuild);
    [vec![Act::Look, rebuild(), rebuild()], misfortune, vec![rebuild()]].concat()
}
