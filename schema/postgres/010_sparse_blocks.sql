-- A block's row grows when its states are stored: to twice its size where a batch addresses one device of the block. All
-- rows of a page, which are of one batch, often do in one transaction; with this room they stay on their page, and no index
-- is touched.
ALTER TABLE batch_block SET (fillfactor = 40);
