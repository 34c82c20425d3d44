//! Words of the language and of others, and the names that messages give to parts of the grammar.

use super::grammar::Rule;

/// Words that cannot be names.
pub(super) const RESERVED: [&str; 23] = [
    "import",
    "extend",
    "const",
    "block",
    "model",
    "fn",
    "optimizer",
    "train",
    "param",
    "use",
    "let",
    "var",
    "return",
    "for",
    "in",
    "if",
    "else",
    "and",
    "or",
    "not",
    "true",
    "false",
    "none",
];

/// Words that begin a declaration.
pub(super) const BEGIN_ITEM: [&str; 8] = ["import", "extend", "const", "block", "model", "fn", "optimizer", "train"];

/// Words that begin a statement or declaration and nothing else.
pub(super) const BEGIN_STATEMENT: [&str; 14] = [
    "import",
    "extend",
    "const",
    "block",
    "model",
    "fn",
    "optimizer",
    "train",
    "param",
    "use",
    "let",
    "var",
    "return",
    "for",
];

/// What to write instead of a word of another language; none for any other word.
pub(super) fn foreign(word: &str) -> Option<&'static str> {
    Some(match word {
        "def" | "func" | "function" | "fun" => "functions are written `fn name(x) { … }`",
        "lambda" => "there are no functions without a name: write a `fn` at the top of the file",
        "class" | "struct" | "module" => "a part of a model is a `block`, the whole is a `model`",
        "while" | "loop" => "the only loop is `for x in xs { … }`",
        "elif" | "elseif" | "elsif" => "write `else if`",
        "mut" => "write `var` instead of `let` for a name that changes",
        "pub" | "public" | "static" | "async" | "export" => "leave it out",
        "from" | "include" | "require" => "write `import \"file.mng\"`: all of its declarations become visible",
        "switch" | "match" | "case" => "write `if a { … } else if b { … } else { … }`",
        "nil" | "null" | "nullptr" | "undefined" => "write `none`",
        "pass" => "write `{ }` for an empty body",
        "is" => "write `==`",
        "assert" | "print" | "del" | "global" | "raise" | "yield" | "try" | "break" | "continue" | "goto" => {
            "there is no such statement"
        }
        _ => return None,
    })
}

/// How a message calls what the grammar expected; none for what goes without saying.
pub(super) fn name_of(rule: Rule) -> Option<&'static str> {
    use Rule::*;
    Some(match rule {
        brk => "the end of the line",
        EOI => "the end of the file",
        name | word => "a name",
        path | group | selector => "a dotted name",
        pattern | pattern_list | pattern_tuple | ignore => "a name",
        string => "a string",
        number => "a number",
        expr | arg | index_item | exprs | list | paren | record => "a value",
        stmt | body => "a statement",
        item | items | file => "a declaration",
        param | params => "a parameter",
        setting | settings | shape_bindings => "a setting",
        type_expr => "a type",
        const_def | const_defs | binding | use_def => "a name and its value",
        lparen | call => "`(`",
        rparen => "`)`",
        lbracket | index | shape_vars => "`[`",
        rbracket => "`]`",
        lbrace => "`{`",
        rbrace => "`}`",
        comma => "`,`",
        semi => "`;`",
        colon => "`:`",
        dot | field => "`.`",
        eq => "`=`",
        kw_with => "`with`",
        kw_in => "`in`",
        kw_init => "`init`",
        kw_none => "`none`",
        kw_if => "`if`",
        kw_for => "`for`",
        equal | unequal | less_equal | greater_equal | less | greater | range | bit_or | bit_and | add | sub | mul
        | div | rem | matmul | pow | neg | kw_or | kw_and | kw_not => "an operator",
        _ => return None,
    })
}
