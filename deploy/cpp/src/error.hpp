#pragma once

#include <stdexcept>
#include <string>

/// The user's input is wrong: one message that says what, where, and how to mend it; exit code 2.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
