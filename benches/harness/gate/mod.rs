//! What the gate costs and what it withstands: settings with all of it off and on, half-open
//! connections, instructions an echo.

pub mod half_open;
pub mod instructions;
pub mod part;
pub mod setting;
pub mod tables;
pub mod token;
