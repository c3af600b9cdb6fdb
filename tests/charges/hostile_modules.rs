//! The generator of hostile modules does what it says.

use wasmparser::Validator;

use crate::common::Dice;
use crate::common::hostile::{Kind, nth, recipe};

#[test]
fn hostile_modules_are_what_they_are_said_to_be() {
    for n in 0..200 {
        let (kind, wasm) = nth(n, 100_000);
        assert!(
            nth(n, 100_000).1 == wasm,
            "{n}: {kind:?} is not the same again"
        );
        if kind.is_valid() {
            let error = Validator::new().validate_all(&wasm).err();
            assert!(error.is_none(), "{n}: {kind:?}: {error:?}");
        }
    }
}

#[test]
fn a_recipe_is_read_as_it_is_written() {
    for kind in Kind::ALL {
        let recipe = recipe(kind, &mut Dice(7), 1000);
        assert_eq!(recipe.to_string().parse(), Ok(recipe));
    }
}
