//! How much a grammar may cost.

use llguidance::api::ParserLimits;

/// Limits for grammars that strangers send. llguidance's own are made for one trusted user: its lexer alone may grow to
/// 250,000 states, about 500 MB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarLimits {
    /// Bytes of a grammar's text.
    pub max_bytes: usize,
    /// How deep brackets, groups and subschemas may nest.
    pub max_depth: usize,
    /// Lines of a Lark grammar, rules of a GBNF grammar, subschemas of a JSON schema.
    pub max_rules: usize,
    /// Symbols of the compiled grammar.
    pub max_symbols: usize,
    /// Work for compiling; llguidance does about 50,000 a millisecond.
    pub compile_fuel: u64,
    /// Work of the lexer for one mask, about 14,000 a millisecond.
    pub step_fuel: u64,
    /// Items of the parser for one mask, about 20,000 a millisecond.
    pub step_items: usize,
    /// Items of the parser in one row.
    pub row_items: usize,
    /// States of the lexer of one sequence, 1 to 2 kB each.
    pub lexer_states: usize,
    /// Bytes of all compiled grammars that are kept.
    pub cache_bytes: usize,
}

impl Default for GrammarLimits {
    fn default() -> GrammarLimits {
        GrammarLimits {
            max_bytes: 128 << 10,
            max_depth: 64,
            max_rules: 4_000,
            max_symbols: 50_000,
            compile_fuel: 500_000,
            step_fuel: 200_000,
            step_items: 50_000,
            row_items: 1_000,
            lexer_states: 20_000,
            cache_bytes: 64 << 20,
        }
    }
}

impl GrammarLimits {
    pub(super) fn of_library(&self) -> ParserLimits {
        ParserLimits {
            max_items_in_row: self.row_items,
            initial_lexer_fuel: self.compile_fuel,
            step_lexer_fuel: self.step_fuel,
            step_max_items: self.step_items,
            max_lexer_states: self.lexer_states,
            max_grammar_size: self.max_symbols,
            // Walks the whole vocabulary while compiling, for one regex of many: the walk is paid in the steps instead.
            precompute_large_lexemes: false,
            verbose_errors: false,
        }
    }
}
