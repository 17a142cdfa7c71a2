//! The test harness: the laboratory with a gateway in it, clients that others wrote, and rows that say on which
//! datapaths they hold.

pub mod gateway;
pub mod lab;
pub mod packet;
pub mod rows;
pub mod shell;
