//! The plain way: nine shifted products over zero-padded tiles.
//!
//! A tile is some rows of one image with a row above and below and one column of zeros between
//! the rows: that column is the right padding of one row and the left padding of the next. So a
//! pixel's neighbour is always the same number of rows away, and the convolution is one product
//! over consecutive rows with nine taps. The values at the column of zeros are computed and
//! thrown away: 1 in width + 1.
//!
//! Forward and backward of the data are 18 P C K operations each for P pixels, C channels in and
//! K maps out, as is the gradient of the weight.

mod backward;
mod forward;
mod tile;

pub(super) use backward::{add_weight, backward, pack_backward};
pub(super) use forward::{forward, pack_forward};
