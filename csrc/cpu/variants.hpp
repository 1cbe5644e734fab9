// Declares what every instruction set's copy of a source file defines (cpu/instruction_set.cpp chooses among them).
#pragma once

#if defined(MIDGRAIN_HAS_X86_VARIANTS)
#define MIDGRAIN_DECLARE_VARIANTS(Type, name) \
    namespace baseline {                      \
    extern const Type name;                   \
    }                                         \
    namespace avx2 {                          \
    extern const Type name;                   \
    }                                         \
    namespace avx512 {                        \
    extern const Type name;                   \
    }                                         \
    namespace avx512vnni {                    \
    extern const Type name;                   \
    }
#else
#define MIDGRAIN_DECLARE_VARIANTS(Type, name) \
    namespace baseline {                      \
    extern const Type name;                   \
    }
#endif
