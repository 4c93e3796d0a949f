//! The table of settings holds together: every row takes what its kind says, and refuses the rest by its name.

use super::*;

fn each_row<T: Settings + Clone>(mut see: impl FnMut(&Row<T>, T)) {
    T::ROWS.iter().for_each(|row| see(row, T::default()));
}

/// Some value of a kind that is not the default of any row.
fn sample(kind: ValueKind) -> SettingValue {
    match kind {
        ValueKind::Whole { least, most } => SettingValue::Whole((least + 1).min(most)),
        ValueKind::Number { least, .. } => SettingValue::Number(least + 0.5),
        ValueKind::Seconds | ValueKind::SecondsOrNone => SettingValue::Time(Duration::from_millis(1)),
        ValueKind::Flag => SettingValue::Flag(false),
        ValueKind::Json => SettingValue::Json("{}".into()),
        ValueKind::Text | ValueKind::Account | ValueKind::Name => SettingValue::Text("x".into()),
        ValueKind::Choice(words) => SettingValue::Text(words[words.len() - 1].into()),
        ValueKind::Networks => SettingValue::Networks(vec!["10.0.0.0/8".parse().unwrap()]),
        ValueKind::Socket => SettingValue::Text("/x".into()),
        ValueKind::Door => SettingValue::Text("127.0.0.1:1".into()),
        ValueKind::History => {
            let members = HistoryRule::ROWS.iter().map(|row| (row.setting.php.name, sample(row.setting.kind)));
            SettingValue::Rules(vec![("x/#".into(), members.collect())])
        }
        ValueKind::Texts => SettingValue::Texts(vec!["x".into()]),
        ValueKind::Any => SettingValue::None,
    }
}

fn check_rows<T: Settings + Clone>() {
    each_row::<T>(|row, mut settings| {
        let value = sample(row.setting.kind);
        row.put(&mut settings, value.clone()).unwrap();
        assert_eq!(row.get(&settings), value, "{:?}", row.setting);
        if row.setting.kind != ValueKind::Any {
            let error = row.put(&mut settings, SettingValue::Networks(Vec::new())).err();
            assert!(row.setting.kind == ValueKind::Networks || error.is_some_and(|error| error.kind == ErrorKind::Internal));
        }
    });
    assert_eq!(T::default().check_bounds(), Ok(()));
}

#[test]
fn every_row_takes_and_gives_a_value_of_its_kind_and_no_other() {
    check_rows::<ServerConfig>();
    check_rows::<RateLimit>();
    check_rows::<HistoryRule>();
    check_rows::<ServerSwitches>();
    check_rows::<InboxLimits>();
    check_rows::<HostSettings>();
    check_rows::<LoopSettings>();
    check_rows::<LogSettings>();
    check_rows::<ClientConfig>();
}

#[test]
fn no_key_stands_in_a_table_twice_and_each_has_a_text_and_a_place_in_a_binding() {
    for listed in [of_server(), of_client(), of_clients()] {
        for name in [|setting: &Setting| setting.php.name, |setting: &Setting| setting.c.name] {
            let mut names: Vec<_> = listed.iter().map(|row| name(&row.setting)).filter(|name| !name.is_empty()).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        }
        for Listed { setting, .. } in listed {
            assert!(!setting.text.is_empty() && !setting.text.contains("  "), "{setting:?}");
            assert!(!setting.php.name.is_empty() || !setting.c.name.is_empty(), "{setting:?}");
        }
    }
}

#[test]
fn what_is_out_of_its_bounds_is_refused_with_the_name_of_the_key_wherever_it_stands() {
    fn check<T: Settings + Clone>() -> usize {
        let mut refused = 0;
        each_row::<T>(|row, mut settings| {
            let key = if row.setting.c.name.is_empty() { row.setting.php.name } else { row.setting.c.name };
            let values = match row.setting.kind {
                ValueKind::Whole { least, most } => vec![SettingValue::Whole(least.wrapping_sub(1)), SettingValue::Whole(most + 1)],
                ValueKind::Number { .. } => [-0.5, f64::NAN, f64::INFINITY, 1e300].map(SettingValue::Number).to_vec(),
                ValueKind::Seconds => {
                    [Duration::ZERO, Duration::from_micros(999), YEAR + Duration::from_nanos(1)].map(SettingValue::Time).to_vec()
                }
                _ => Vec::new(),
            };
            for value in values {
                row.put(&mut settings, value.clone()).unwrap();
                if row.get(&settings) != value {
                    // The type of the field is narrower than its bounds.
                    continue;
                }
                let error = settings.check_bounds().expect_err(key);
                assert!(error.kind == ErrorKind::Config && error.message.starts_with(&format!("{key} must be ")), "{value:?}: {error}");
                refused += 1;
            }
        });
        refused
    }
    let refused = check::<ServerConfig>() + check::<RateLimit>() + check::<InboxLimits>() + check::<ClientConfig>();
    assert!(refused > 40, "{refused}");
}

#[test]
fn the_texts_of_refusals_say_what_is_wanted() {
    for (number, least, most, says) in [
        (0, 1, MOST, "n must be at least 1"),
        (MOST + 1, 1, MOST, "n must be at most 9007199254740992"),
        (3, 1, 2, "n must be 1 or 2"),
        (0, 1, 65_535, "n must be between 1 and 65535"),
    ] {
        assert_eq!(check_whole("n", number, least, most).unwrap_err().message, says);
    }
    let error = ServerConfig { rate_limit: Some(RateLimit { refill_per_second: -1.0, ..RateLimit::default() }), ..ServerConfig::default() };
    assert_eq!(error.validate().unwrap_err().message, "rate_limit_refill_rate must be a number from 0 to 9007199254740992");
}

#[test]
fn a_path_and_origins_that_no_browser_could_name_are_refused() {
    let with = |path: &str, origins: &[&str]| {
        let origins = origins.iter().map(ToString::to_string).collect();
        ServerConfig { websocket_path: Some(path.into()), websocket_origins: origins, ..ServerConfig::default() }.validate()
    };
    assert_eq!(with("/ws", &["https://a.example", "http://[::1]:8080", "null"]), Ok(()));
    for path in ["", "ws", "/a b", "/a?b", "/a#b", "/ä"] {
        assert_eq!(with(path, &[]).unwrap_err().message, "websocket_path must begin with / and have no spaces, ? or #");
    }
    for origin in ["a.example", "https://", "://a", "https://a.example/", "*", ""] {
        let error = with("/", &["https://b", origin]).unwrap_err();
        assert_eq!(error.message, format!("websocket_origins must be origins such as https://example.com, unlike {origin:?}"));
    }
}

#[test]
fn the_rate_limit_is_off_until_one_of_its_keys_is_set() {
    let limit = |enable, is_any_set| {
        ServerSwitches { enable_rate_limit: enable, ..ServerSwitches::default() }.rate_limit(RateLimit::default(), is_any_set)
    };
    assert_eq!(limit(None, false), None);
    assert_eq!(limit(Some(false), true), None);
    assert_eq!([limit(None, true), limit(Some(true), false)], [Some(RateLimit::default()); 2]);
}

#[test]
fn the_rules_of_histories_have_bounds_of_their_own_and_the_defaults_that_the_text_says() {
    let rule = |ttl| HistoryRule { filter: "chat/#".into(), ttl, ..HistoryRule::default() };
    let config = |rules| ServerConfig { history: rules, ..ServerConfig::default() };
    assert_eq!(config(vec![rule(Duration::from_secs(1)), rule(YEAR)]).validate(), Ok(()));
    let error = config(vec![rule(YEAR), rule(Duration::ZERO)]).validate().unwrap_err();
    assert_eq!((error.kind, &*error.message), (ErrorKind::Config, "history of \"chat/#\": ttl must be between 1 ms and one year"));
    let row = ServerConfig::ROWS.iter().find(|row| row.setting.php.name == "history").unwrap();
    for Listed { setting, default } in HistoryRule::listed() {
        let words = row.setting.text.split(&format!("`{}`", setting.php.name)).nth(1).unwrap();
        assert!(words.split(['(', ')', ',']).nth(1).unwrap() == default.json(), "{words}");
        assert!(row.setting.c.note.contains(&format!("{:?}:{}", setting.php.name, default.json())));
    }
    // Members that are not named keep their defaults, others are none of a rule's.
    let read = |members| <Vec<HistoryRule>>::of(SettingValue::Rules(vec![("chat/#".into(), members)]));
    assert_eq!(read(vec![("count", SettingValue::Whole(1))]), Some(vec![HistoryRule { count: 1, ..rule(Duration::from_secs(3600)) }]));
    assert_eq!(read(vec![("filter", SettingValue::Text("x".into()))]), None);
    assert_eq!(read(vec![("count", SettingValue::Flag(true))]), None);
}
