//! A configuration as TOML of ours: what `garenne config translate` prints.

use super::Config;

/// What differs from the defaults.
///
/// # Errors
/// If a value has no form in TOML, such as a number above 2^63.
pub fn translate(config: &Config) -> Result<String, String> {
    let table = |config: &Config| toml::Table::try_from(config).map_err(|e| e.to_string());
    let (mut wanted, default) = (table(config)?, table(&Config::default())?);
    wanted.retain(|key, value| default.get(key) != Some(value));
    toml::to_string_pretty(&wanted).map_err(|e| e.to_string())
}
