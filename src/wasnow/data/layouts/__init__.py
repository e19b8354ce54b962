"""How datasets lie on disk: one module a family of layouts, each answering `Layout` or None.

    described   a dataset.yaml says where everything is             any folder
    hrscd       images_2006, images_2012, labels_change, ...        HRSCD
    xbd         *_pre_disaster, *_post_disaster                     xBD and what is made like it
    roles       folders named for their role, in any nesting        SECOND, LEVIR-CD, WHU-CD, Landsat-SCD, DSIFN-CD, ...
                (folders of other names: by looking at pictures)    GeoTIFF pairs with polygons

They are asked in this order, and the first that finds its marks answers. No module decides how label values are
encoded unless its layout fixes that: see `wasnow.data.recognise`.
"""
