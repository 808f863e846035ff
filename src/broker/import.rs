//! Definitions read in: a file of RabbitMQ's (3.8 to 4.x), of LavinMQ's or our own becomes what it says, or nothing of
//! it does.
//!
//! First everything is read and held against what is there, with all that it touches held fast; then it is made,
//! and the store gets it as one record. What is there already stays; nothing is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use store::Operation;
use tracing::{info, warn};

use super::audit::{Actor, AdminEvent};
use super::parameters::{CLUSTER_ID, check_global_parameter};
use super::read::{self, Said};
use super::{Broker, Change};
use crate::auth::User;
use crate::error::Error;
use crate::vhost::definitions::{Definition, GlobalParameter};
use crate::vhost::{Diff, Draft, Vhost, definitions};

/// The hash of what was imported from a place at a start, by the place.
const IMPORTED: &str = "imported_definition_hash_value";

/// What is to become of everything but the contents of vhosts.
#[derive(Default)]
struct Plan {
    users: Vec<User>,
    vhosts: Vec<definitions::Vhost>,
    permissions: Vec<definitions::UserPermission>,
    topic_permissions: Vec<definitions::UserTopicPermission>,
    global_parameters: Vec<(String, Json)>,
}

impl Broker {
    /// Imports definitions: of the whole broker, or what is said to be in a vhost into that one. With `dry_run`
    /// nothing changes, and the answer says what would.
    ///
    /// # Errors
    /// `NoVhost`; `Invalid`: the first thing that cannot be, by its name. Nothing has changed then. `Store`.
    pub fn import_definitions(
        &self,
        actor: &Actor,
        definitions: &Json,
        vhost: Option<&str>,
        dry_run: bool,
    ) -> Result<Diff, Error> {
        let what = match vhost {
            Some(name) => format!("import definitions into vhost '{name}'"),
            None => "import definitions".to_string(),
        };
        let said = read::definitions(definitions, vhost)?;
        if let Some(name) = vhost {
            self.vhost(name)?;
        }
        self.perform(actor, &what, || self.import(actor, said, dry_run))
    }

    fn import(&self, actor: &Actor, mut said: Said, dry_run: bool) -> Result<Change<Diff>, Error> {
        let mut diff = Diff { skip: std::mem::take(&mut said.skip), ..Diff::default() };
        let mut plan = Plan::default();
        self.plan_vhosts(&mut said, &mut plan, &mut diff)?;
        self.plan_users(&mut said, &mut plan, &mut diff)?;
        self.plan_permissions(&mut said, &mut plan, &mut diff)?;
        self.plan_global_parameters(&mut said, &mut plan, &mut diff)?;
        // Those that are not there yet are made, though nobody knows them before all is well.
        let mut vhosts: BTreeMap<String, Arc<Vhost>> = BTreeMap::new();
        let is_planned = |name: &str| plan.vhosts.iter().find(|about| about.name == name);
        let touched: BTreeSet<&String> =
            said.contents.keys().chain(plan.vhosts.iter().map(|v| &v.name)).collect();
        for name in touched {
            let vhost = match (self.vhost(name), is_planned(name)) {
                (Ok(vhost), _) => vhost,
                (Err(_), Some(about)) => self.new_vhost(about.clone()),
                (Err(error), None) => return Err(error),
            };
            vhosts.insert(name.clone(), vhost);
        }
        // In the order of their names, so that two imports cannot wait for each other.
        let mut drafts: Vec<Draft<'_>> = Vec::new();
        for (name, vhost) in &vhosts {
            let Some(contents) = said.contents.remove(name) else { continue };
            let about =
                is_planned(name).cloned().unwrap_or_else(|| definitions::Vhost::clone(&vhost.about()));
            let mut draft = vhost.draft();
            draft.check(contents, &about, &mut diff)?;
            drafts.push(draft);
        }
        if dry_run {
            return Ok(Change::nothing(diff));
        }
        let mut operations: Vec<Operation> = self.apply(&plan, &vhosts);
        for draft in drafts {
            operations.extend(draft.apply(&actor.user)?);
        }
        let places: BTreeSet<&str> = plan
            .permissions
            .iter()
            .map(|p| p.vhost.as_str())
            .chain(plan.topic_permissions.iter().map(|p| p.vhost.as_str()))
            .collect();
        places.iter().filter_map(|name| self.vhost(name).ok()).for_each(|vhost| vhost.forget_routes());
        let mut events = events(&plan, &vhosts);
        if !diff.create.is_empty() || !diff.change.is_empty() {
            events.push(AdminEvent::definitions_imported(diff.create.len(), diff.change.len()));
        }
        Ok(Change { operations, events, value: diff })
    }

    fn plan_vhosts(&self, said: &mut Said, plan: &mut Plan, diff: &mut Diff) -> Result<(), Error> {
        for (name, changes) in std::mem::take(&mut said.vhosts) {
            let before = self.vhost(&name).ok().map(|vhost| vhost.about());
            let is_new = before.is_none();
            let before = before.unwrap_or_else(|| Arc::new(definitions::Vhost::new(&name)));
            let about = changes.apply(&before)?;
            let text = format!("vhost '{name}'");
            match (is_new, about == *before) {
                (true, _) => diff.create.push(text),
                (false, false) => diff.change.push(text),
                (false, true) => {
                    diff.same += 1;
                    continue;
                }
            }
            plan.vhosts.push(about);
        }
        for (name, limits) in std::mem::take(&mut said.limits) {
            let planned = plan.vhosts.iter_mut().find(|about| about.name == name);
            if let Some(about) = planned {
                about.limits = limits;
                continue;
            }
            let before = self.vhost(&name)?.about();
            if before.limits == limits {
                diff.same += 1;
                continue;
            }
            diff.change.push(format!("limits of vhost '{name}'"));
            plan.vhosts.push(definitions::Vhost { limits, ..definitions::Vhost::clone(&before) });
        }
        Ok(())
    }

    fn plan_users(&self, said: &mut Said, plan: &mut Plan, diff: &mut Diff) -> Result<(), Error> {
        for user in std::mem::take(&mut said.users) {
            let read::SaidUser { name, password, tags, limits } = user;
            let before = self.user(&name);
            let hash = match (&before, password) {
                // The salt is another each time, the password is not.
                (Some(before), read::Password::Clear(clear)) if before.password.fits(&clear) => {
                    before.password.clone()
                }
                (_, password) => password.hash()?,
            };
            let limits = limits.or_else(|| before.as_ref().map(|b| b.limits.clone())).unwrap_or_default();
            let user = User { name: name.as_str().into(), password: hash, tags, limits };
            let text = format!("user '{name}'");
            match before {
                Some(before) if *before == user => {
                    diff.same += 1;
                    continue;
                }
                Some(_) => diff.change.push(text),
                None => diff.create.push(text),
            }
            plan.users.push(user);
        }
        Ok(())
    }

    fn plan_permissions(&self, said: &mut Said, plan: &mut Plan, diff: &mut Diff) -> Result<(), Error> {
        let there = |user: &str, vhost: &str, text: &str| {
            let has_user = self.user(user).is_some() || plan.users.iter().any(|other| *other.name == *user);
            let has_vhost = self.vhost(vhost).is_ok() || plan.vhosts.iter().any(|other| other.name == vhost);
            match (has_user, has_vhost) {
                (true, true) => Ok(()),
                (false, _) => Err(Error::Invalid(format!("{text}: {}", Error::NoUser(user.into())))),
                (_, false) => Err(Error::Invalid(format!("{text}: {}", Error::NoVhost(vhost.into())))),
            }
        };
        for wanted in std::mem::take(&mut said.permissions) {
            let text = format!("permissions of user '{}' in vhost '{}'", wanted.user, wanted.vhost);
            there(&wanted.user, &wanted.vhost, &text)?;
            wanted.permission.check().map_err(|error| Error::Invalid(format!("{text}: {error}")))?;
            match self.permission(&wanted.user, &wanted.vhost) {
                Some(before) if before == wanted.permission => {
                    diff.same += 1;
                    continue;
                }
                Some(_) => diff.change.push(text),
                None => diff.create.push(text),
            }
            plan.permissions.push(wanted);
        }
        for wanted in std::mem::take(&mut said.topic_permissions) {
            let definitions::UserTopicPermission { user, vhost, exchange, permission } = &wanted;
            let text =
                format!("topic permissions of user '{user}' on exchange '{exchange}' in vhost '{vhost}'");
            there(user, vhost, &text)?;
            permission.check(user, vhost).map_err(|error| Error::Invalid(format!("{text}: {error}")))?;
            match self.users().topic_permission(user, vhost, exchange) {
                Some(before) if before == permission => {
                    diff.same += 1;
                    continue;
                }
                Some(_) => diff.change.push(text),
                None => diff.create.push(text),
            }
            plan.topic_permissions.push(wanted);
        }
        Ok(())
    }

    fn plan_global_parameters(&self, said: &mut Said, plan: &mut Plan, diff: &mut Diff) -> Result<(), Error> {
        for (name, value) in std::mem::take(&mut said.global_parameters) {
            check_global_parameter(&name, &value)?;
            let text = format!("global parameter '{name}'");
            match self.globals().get(&name) {
                Some(before) if *before == value => diff.same += 1,
                // It is what tells this broker from the one that the file comes from.
                Some(_) if name == CLUSTER_ID => diff.keep.push(text),
                Some(_) => {
                    diff.change.push(text);
                    plan.global_parameters.push((name, value));
                }
                None => {
                    diff.create.push(text);
                    plan.global_parameters.push((name, value));
                }
            }
        }
        Ok(())
    }

    /// Nothing of this can fail any more. What the store has to be told.
    fn apply(&self, plan: &Plan, vhosts: &BTreeMap<String, Arc<Vhost>>) -> Vec<Operation> {
        let mut operations = Vec::new();
        for about in &plan.vhosts {
            let Some(vhost) = vhosts.get(&about.name) else { continue };
            vhost.describe(about.clone());
            self.vhosts.entry(vhost.name().clone()).or_insert_with(|| vhost.clone());
            operations.push(Definition::Vhost(about.clone()).define());
        }
        let mut users = self.users_mut();
        for user in &plan.users {
            users.insert(user.clone());
            operations.push(Definition::User(user.clone()).define());
        }
        for wanted in &plan.permissions {
            users.permit(&wanted.user, &wanted.vhost, Some(wanted.permission.clone()));
            operations.push(Definition::Permission(wanted.clone()).define());
        }
        for wanted in &plan.topic_permissions {
            let permission = Some(wanted.permission.clone());
            users.permit_topic(&wanted.user, &wanted.vhost, &wanted.exchange, permission);
            operations.push(Definition::TopicPermission(wanted.clone()).define());
        }
        drop(users);
        let mut globals = self.globals_mut();
        for (name, value) in &plan.global_parameters {
            globals.insert(name.clone(), value.clone());
            let parameter = GlobalParameter { name: name.clone(), value: value.clone() };
            operations.push(Definition::GlobalParameter(parameter).define());
        }
        operations
    }

    // At a start ----------------------------------------------------------------------------------

    /// Imports what the configuration names: files, and the `*.json` of directories in the order of their names.
    /// A file that has not changed since it was imported is passed over, if so configured.
    ///
    /// # Errors
    /// What is wrong with the first file that cannot be imported.
    pub(super) fn load_definitions(&self) -> Result<(), Error> {
        let actor = Actor::broker();
        for path in self
            .config
            .load_definitions
            .iter()
            .map(|path| files(path))
            .collect::<Result<Vec<_>, _>>()?
            .concat()
        {
            let name = path.display().to_string();
            let invalid = |reason: String| Error::Invalid(format!("load_definitions: {name}: {reason}"));
            let bytes = std::fs::read(&path).map_err(|error| invalid(error.to_string()))?;
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let before = self.globals().get(IMPORTED).and_then(|all| all.get(&name).cloned());
            if self.config.skip_unchanged_definitions && before.as_ref().and_then(Json::as_str) == Some(&hash)
            {
                info!(file = name, "definitions have not changed since they were imported");
                continue;
            }
            let json: Json = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
            let diff = self
                .import_definitions(&actor, &json, None, false)
                .map_err(|error| invalid(error.to_string()))?;
            let Diff { create, change, keep, skip, same } = &diff;
            info!(file = name, created = create.len(), changed = change.len(), same, "definitions imported");
            keep.iter().for_each(|what| {
                warn!(file = name, "{what} is there with other properties, and stays as it is")
            });
            skip.iter().for_each(|what| warn!(file = name, "{what}"));
            let mut hashes =
                self.globals().get(IMPORTED).and_then(Json::as_object).cloned().unwrap_or_default();
            hashes.insert(name, hash.into());
            self.put_global_parameter(&actor, IMPORTED, Json::Object(hashes))?;
        }
        Ok(())
    }
}

/// The files that a path stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let invalid =
        |error: std::io::Error| Error::Invalid(format!("load_definitions: {}: {error}", path.display()));
    let entries = std::fs::read_dir(path).map_err(invalid)?;
    let mut files =
        entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

/// What is told of an import, thing by thing.
fn events(plan: &Plan, vhosts: &BTreeMap<String, Arc<Vhost>>) -> Vec<AdminEvent> {
    let of_vhosts =
        plan.vhosts.iter().filter(|about| vhosts.contains_key(&about.name)).map(AdminEvent::vhost_updated);
    let of_users = plan.users.iter().map(|user| AdminEvent::user_tags_set(&user.name, &user.tags));
    let of_permissions =
        plan.permissions.iter().map(|p| AdminEvent::permission_created(&p.user, &p.vhost, &p.permission));
    let of_topics = plan
        .topic_permissions
        .iter()
        .map(|p| AdminEvent::topic_permission_created(&p.user, &p.vhost, &p.exchange, &p.permission));
    let of_globals =
        plan.global_parameters.iter().map(|(name, value)| AdminEvent::global_parameter_set(name, value));
    of_vhosts.chain(of_users).chain(of_permissions).chain(of_topics).chain(of_globals).collect()
}
