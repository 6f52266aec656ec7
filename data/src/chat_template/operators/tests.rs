use super::*;

#[test]
fn slices_are_python_s() {
    for (start, stop, step, expected) in [
        (None, None, 1, vec![0, 1, 2, 3]),
        (Some(1), None, 1, vec![1, 2, 3]),
        (None, Some(-1), 1, vec![0, 1, 2]),
        (Some(-2), None, 1, vec![2, 3]),
        (Some(-9), Some(9), 2, vec![0, 2]),
        (None, None, -1, vec![3, 2, 1, 0]),
        (Some(2), Some(0), -1, vec![2, 1]),
        (Some(3), Some(1), 1, vec![]),
        (Some(i64::MIN), Some(i64::MAX), i64::MAX, vec![0]),
    ] {
        assert_eq!(indices(4, start, stop, step), expected, "{start:?} {stop:?} {step}");
    }
    assert!(indices(0, None, None, -1).is_empty());
}

#[test]
fn numbers_stay_numbers() {
    let value = |number: f64| Value::from(number);
    assert_eq!(add(&Value::from(1), &Value::from(2)).unwrap(), Value::from(3));
    assert_eq!(add(&value(0.5), &Value::from(true)).unwrap(), value(1.5));
    assert_eq!(multiply(&Value::from("ab"), &Value::from(2)).unwrap(), Value::from("abab"));
    assert_eq!(multiply(&Value::from(-1), &Value::from("ab")).unwrap(), Value::from(""));
    assert!(add(&Value::from("a"), &Value::from(1)).is_err());
    begin(0);
    assert!(multiply(&Value::from("x"), &Value::from(1_000_000_000)).is_err());
}
