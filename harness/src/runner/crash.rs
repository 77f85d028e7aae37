//! Kills at every call, alone, beside another client and as derived states; and derived files that are damaged.

use crate::call::Traced;
use crate::observation::FileState;
use crate::op::Request;
use crate::persist::crash_states;
use crate::runner::quiet::Quiet;
use crate::runner::sweep::{Sweep, group, name_of};
use crate::runner::{Cut, First, Next, RunError, Showing, TraceError};
use crate::scenario::script::Misfortune;
use crate::scenario::{crash, damage};
use crate::target::Format;

impl Sweep<'_> {
    pub(super) fn crash(&mut self, first: &First, all: &[Quiet<'_>]) -> Result<(), TraceError> {
        // They are few, and nothing else shows what they show.
        self.derived_files(first)?;
        let points: Vec<Vec<u32>> = all.iter().map(|one| crash::points(&one.traced.calls)).collect();
        for (index, (one, points)) in all.iter().zip(&points).enumerate() {
            self.derived(first, one)?;
            // Should the time not be enough for all, a second client beside `add` shows more than most of the rest.
            if index == 0 {
                self.beside_another(first, one.request, &one.traced, points)?;
            }
            let left_out = (one.traced.calls.len() + 1).saturating_sub(points.len());
            self.bound(
                left_out,
                &format!("crash points of {}, those away from its changes", name_of(one.request)),
            );
            let kills = crash::kills(one.request, &one.traced.calls, points);
            self.play(first, group(format!("crash points of {}", name_of(one.request)), kills))?;
        }
        for (one, points) in all.iter().zip(&points) {
            let name = name_of(one.request);
            let single = crash::kills_of_processes(one.request, &one.traced.calls, points);
            // What leaves processes behind never ends when one of the others is gone.
            if one.traced.operations.iter().all(|ended| ended.survivors == 0) {
                self.play(first, group(format!("points of {name} with one process killed"), single))?;
            } else if !single.is_empty() {
                self.done.not_covered.insert(format!(
                    "single processes of {name} are not killed alone, since it leaves processes behind"
                ));
            }
        }
        let others = all.iter().zip(&points).skip(1);
        others
            .into_iter()
            .try_for_each(|(one, points)| self.beside_another(first, one.request, &one.traced, points))
    }

    /// The derived files, damaged, and their rebuild, killed at each of its calls.
    pub(super) fn derived_files(&mut self, first: &First) -> Result<(), TraceError> {
        let Some(derived) = &self.stage.target.derived else { return Ok(()) };
        // Empty, other formats are a store with nothing in it.
        let is_json = self.stage.target.data.format == Format::Json;
        let data = is_json.then(|| self.subject.data.clone());
        self.subject.unrepeatable = self.stage.unrepeatable()?;
        self.play(
            first,
            group("damages of derived files", damage::scripts(&derived.files, data.as_deref())),
        )?;
        let quiet = self.quiet(&Request::Rebuild)?;
        let points = crash::points(&quiet.traced.calls);
        let kills = damage::kills(&derived.files, &quiet.traced.calls, &points);
        self.play(first, group("crash points of the rebuild", kills))
    }

    /// The executions with a second client.
    pub(super) fn beside_another(
        &mut self,
        first: &First,
        request: &Request,
        quiet: &Traced,
        points: &[u32],
    ) -> Result<(), TraceError> {
        let points = crash::points_beside(&quiet.calls, points);
        if points.is_empty() || self.done.cut.is_some() {
            return Ok(());
        }
        self.done.groups.push((
            format!("points of {} beside another client, where it reads, changes or locks", name_of(request)),
            0,
            0,
        ));
        let points: Vec<(u64, u32)> =
            points.into_iter().filter_map(|point| Some((self.next_place()?, point))).collect();
        if let Some((_, planned, _)) = self.done.groups.last_mut() {
            *planned = points.len();
        }
        for (place, point) in points {
            self.place = place;
            let mut was_disturbed = false;
            for what in crash::BESIDE {
                let script = crash::beside_another(request, &quiet.calls, point, what);
                let seen = self.play_once(first, &script)?;
                was_disturbed |= seen.was_disturbed;
                // Who does not wait cannot be killed waiting.
                if self.done.cut.is_some() || (what != Misfortune::Hold && !seen.second_waited) {
                    break;
                }
            }
            if let Some((_, _, made)) = self.done.groups.last_mut() {
                *made += usize::from(was_disturbed);
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Every state that a kill of this operation can leave, derived, laid out and given to the store.
    pub(super) fn derived(&mut self, first: &First, quiet: &Quiet<'_>) -> Result<(), TraceError> {
        let calls = &quiet.traced.calls;
        let Some((before, after)) = quiet.trees.as_ref().filter(|_| !calls.is_empty()) else { return Ok(()) };
        let name = name_of(quiet.request);
        let states = match crash_states(before, calls) {
            Ok(states) if states.whole() == after => states,
            Ok(_) => return self.not_derived(name, "what its calls say is not what they left"),
            Err(unmodelled) => return self.not_derived(name, &unmodelled.to_string()),
        };
        self.bound(states.left_out(), &format!("page cuts of long writes of {name}"));
        let count = states.clone().count();
        let places: Vec<Option<u64>> = (0..count).map(|_| self.next_place()).collect();
        let planned = places.iter().flatten().count();
        self.done.groups.push((format!("derived crash states of {name}"), planned, 0));
        let data = &self.stage.target.data;
        for (state, place) in states.zip(places) {
            let Some(place) = place else { continue };
            self.place = place;
            if self.stage.is_time_up() {
                return Err(RunError::Stopped.into());
            }
            let content = data.path.to_str().and_then(|path| state.tree.content(path));
            let is_whole = content.is_some_and(|content| data.format.examine(content) == FileState::Whole);
            self.done.states.0 += 1;
            self.done.states.1 += u64::from(!is_whole);
            let what = state.cut.map_or(Misfortune::Kill, Misfortune::Tear);
            let script = crash::alone(quiet.request, calls, state.point, what);
            let observation = self.stage.play_state(
                "crash",
                &state.tree,
                &script,
                first,
                &self.subject,
                self.execution + 1,
            )?;
            if let Some((_, _, made)) = self.done.groups.last_mut() {
                *made += 1;
            }
            match (self.sink)(Showing::Derived { observation: Box::new(observation), script: &script }) {
                Next::GoOn | Next::Found | Next::Known => {}
                Next::End => self.done.cut = Some(Cut::FailFast),
                Next::Confirm => self.confirm(first, &script)?,
            }
            if self.done.cut.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Where states cannot be derived the kills are made for real all the same.
    pub(super) fn not_derived(&mut self, name: &str, why: &str) -> Result<(), TraceError> {
        self.done.not_covered.insert(format!(
            "crash states of {name} are not derived, so that no write of it is cut at page boundaries by a kill: {why}"
        ));
        Ok(())
    }
}
