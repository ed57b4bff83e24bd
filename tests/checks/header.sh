#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The public headers compile alone, twice over, with every warning: header.sh INCLUDE LANGUAGE
# STANDARD COMPILER..., such as c c11 gcc.
set -eu
include=$1 language=$2 standard=$3
shift 3
for header in "$include"/qkv/*.h; do
    name=qkv/$(basename "$header")
    printf '#include <%s>\n#include <%s>\nextern int here;\nint here;\n' "$name" "$name" |
        "$@" -x "$language" -std="$standard" -I "$include" -Wall -Wextra -Wpedantic -Wundef \
            -Wshadow -Wconversion -Werror -fsyntax-only -
    echo "$name compiles alone with $* -std=$standard"
done
