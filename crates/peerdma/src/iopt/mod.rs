//! I/O page tables: one walker, formats as descriptions.
