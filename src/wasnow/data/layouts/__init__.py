"""Dataset layouts: one module per family, each returning a `Layout` or None.

    described   a dataset.yaml describes the folder                 any folder
    hrscd       images_2006, images_2012, labels_change, ...        HRSCD
    xbd         *_pre_disaster, *_post_disaster                     xBD and datasets derived from it
    roles       folders named by their role, in any nesting         SECOND, LEVIR-CD, WHU-CD, Landsat-SCD, DSIFN-CD, ...
                (folders of other names: by their content)          GeoTIFF pairs with polygons

They are tried in this order, and the first match is used. A layout decides how label values are encoded only where it
defines that; otherwise see `wasnow.data.recognise`.
"""
